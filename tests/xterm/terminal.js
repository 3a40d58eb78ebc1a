// A terminal as VS Code has it, without its window. It reads one JSON a line from stdin and answers each with one line:
//   {"size": [cols, rows]}   the first makes the terminal, later ones resize it
//   {"data": base64}         what the terminal is sent
//   {"dump": true}           adds the whole state to the answer
// An answer is {"answers": base64, ...}: what the terminal has sent back since the last one, to be written to the program.
const readline = require('readline');
const { Terminal } = require('@xterm/headless');
const { Unicode11Addon } = require('@xterm/addon-unicode11');

const FLAGS = ['isBold', 'isDim', 'isItalic', 'isBlink', 'isInverse', 'isInvisible', 'isStrikethrough', 'isOverline'];

let term;
let answers = '';

function open(cols, rows) {
  // VS Code's own settings, where they change what is in the buffer.
  term = new Terminal({ cols, rows, scrollback: 20000, allowProposedApi: true });
  term.loadAddon(new Unicode11Addon());
  term.unicode.activeVersion = '11';
  term.onData(data => { answers += data; });
}

function cellOf(cell) {
  let flags = 0;
  FLAGS.forEach((name, bit) => { if (cell[name]()) flags |= 1 << bit; });
  // The style and the colour of an underline, and the link, are in no public call.
  const { underlineStyle, underlineColor, urlId } = cell.extended;
  flags |= (cell.isUnderline() ? underlineStyle || 1 : 0) << FLAGS.length;
  const link = urlId ? term._core._oscLinkService.getLinkData(urlId) : null;
  return [
    cell.getChars(), cell.getWidth(),
    cell.getFgColorMode() | cell.getFgColor(), cell.getBgColorMode() | cell.getBgColor(),
    flags, cell.isUnderline() ? underlineColor : 0, link ? [link.id || '', link.uri] : null,
  ];
}

// Cells that are equal are told once, behind how many there are.
function lineOf(line) {
  const runs = [];
  let last = null;
  for (let x = 0; x < term.cols; x++) {
    const cell = cellOf(line.getCell(x));
    const key = JSON.stringify(cell);
    if (key === last) runs[runs.length - 1][0]++;
    else runs.push([1, ...cell]);
    last = key;
  }
  return { wrapped: line.isWrapped, runs };
}

function bufferOf(buffer) {
  const lines = [];
  for (let y = 0; y < buffer.length; y++) lines.push(lineOf(buffer.getLine(y)));
  return { lines, base: buffer.baseY, cursor: [buffer.cursorX, buffer.cursorY] };
}

function dump() {
  const { buffer, modes } = term;
  const { coreService, buffer: { scrollTop, scrollBottom } } = term._core;
  return {
    size: [term.cols, term.rows],
    active: buffer.active.type,
    normal: bufferOf(buffer.normal),
    alternate: bufferOf(buffer.alternate),
    modes: { ...modes, cursorHidden: coreService.isCursorHidden },
    margins: [scrollTop, scrollBottom],
  };
}

async function perform(request) {
  if (request.size && !term) open(...request.size);
  else if (request.size) term.resize(...request.size);
  if (request.data) await new Promise(done => term.write(Buffer.from(request.data, 'base64'), done));
  const answer = { answers: Buffer.from(answers).toString('base64'), ...(request.dump ? dump() : {}) };
  answers = '';
  return JSON.stringify(answer);
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(await perform(JSON.parse(line)) + '\n');
  }
})();
