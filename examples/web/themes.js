// The colours of terminals and previews.

export const THEMES = {
  dark: {
    foreground: "#d8dee6", background: "#0d1014", cursor: "#7fb0ff", cursorAccent: "#0d1014", selectionBackground: "#33507a",
    black: "#22272e", red: "#f0716b", green: "#6cc17a", yellow: "#d9a94a", blue: "#6ea8fe", magenta: "#c792ea",
    cyan: "#5cc5c8", white: "#c9d1da", brightBlack: "#6b7683", brightRed: "#ff938d", brightGreen: "#8fdc9b",
    brightYellow: "#f2c76e", brightBlue: "#93c0ff", brightMagenta: "#dab3f3", brightCyan: "#86dde0", brightWhite: "#f3f6fa",
  },
  light: {
    foreground: "#1f252d", background: "#ffffff", cursor: "#2f6fde", cursorAccent: "#ffffff", selectionBackground: "#bcd4fb",
    black: "#1f252d", red: "#c0362c", green: "#2b7a3a", yellow: "#8f6400", blue: "#2459c4", magenta: "#8b3fb0",
    cyan: "#12747a", white: "#6a7480", brightBlack: "#59636f", brightRed: "#d8493e", brightGreen: "#37934a",
    brightYellow: "#a97a08", brightBlue: "#3a72e4", brightMagenta: "#a357c9", brightCyan: "#1f8f96", brightWhite: "#3d4650",
  },
};
const PALETTE = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

/** Return a theme as `session.attach` and `session.screen` take it. */
export function colours(theme) {
  const bright = PALETTE.map((name) => `bright${name[0].toUpperCase()}${name.slice(1)}`);
  const { foreground, background } = theme;
  return { foreground, background, palette: [...PALETTE, ...bright].map((name) => theme[name]) };
}
