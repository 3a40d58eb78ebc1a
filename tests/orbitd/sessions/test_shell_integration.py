"""The shell integration, with real shells on a terminal: the marks, and that nothing else is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from needs import needs
from orbit_os import shell_integration as files
from orbitd.sessions.shell_integration import integrate
from shell_support import MORE, PROMPT, Shell, compare, launch

BASIC = "P=@ PS2='%''% '; PS1=$P'@ '\n"
"""The prompts, which the text of a command that sets them does not show."""
OURS = "env | grep -i -e '^[^=]*orbit' -e '^ZDOT' -e '^ENV='"
"""What would show a variable of ours; by its name, as the tests may run in a folder of that name."""
LOOK = (  # what a shell's user may look at, and what a command leaves to the next one
    "false | true",
    "echo $? ${PIPESTATUS[@]}",
    "(exit 3)",
    "echo $?",
    "echo last",
    "echo $_",
    "",
    "cd /tmp",
    "echo $?",
    "for i in 1 2",
    "do echo $i; done",
    'trap -p; echo $- "$PROMPT_COMMAND"; alias',
    OURS,
    "history | tail -n 3",
    "echo )",
    "echo é",
)
RAN = [
    ("false | true", "0"),
    ("echo $? ${PIPESTATUS[@]}", "0"),
    ("(exit 3)", "3"),
    ("echo $?", "0"),
    ("echo last", "0"),
    ("echo $_", "0"),
    ("cd /tmp", "0"),
    ("echo $?", "0"),
]

PREEXEC = r"""
# As bash-preexec does: it installs itself at the first prompt, and runs before what was typed alone.
precmd_ran() { local status=$?; printf '<precmd %s>' "$status"; }
typing() { is_typing=yes; }
before() { if [[ -n ${is_typing-} ]]; then is_typing=; printf '<preexec %s>' "$(HISTTIMEFORMAT= history 1)"; fi; }
install() { PROMPT_COMMAND=$'precmd_ran\n'; PROMPT_COMMAND+=('typing'); trap 'before "$_"' DEBUG; }
PROMPT_COMMAND=install
"""
STARSHIP = r"""
# As starship does, which writes the prompt anew each time and takes the time from a DEBUG trap.
prompt_written() { local status=$?; PS1="<$status $runs>$P@ "; is_ready=true; }
run_begins() { if [[ ${is_ready-} == true ]]; then is_ready=false; ((++runs)); fi; : "$1"; }
runs=0
trap 'run_begins "$_"' DEBUG
PROMPT_COMMAND=prompt_written
"""
RC_FILES = {
    "plain": "",
    "a prompt command": "PROMPT_COMMAND='echo \"<$?>\"'",
    "an exported prompt command that guards itself": "export PROMPT_COMMAND='[[ -z ${x-} ]] || echo x; x=1'",
    "prompt commands": 'PROMPT_COMMAND=(\'echo "<$?>"\' \'printf "<%s>" "$?"\')',
    "PS0": "PS0='<$((1 + 1))>\\n'",
    "a DEBUG trap": 'trap \'printf "[%s]" "$BASH_COMMAND"\' DEBUG',
    "a DEBUG trap and PS0": "PS0='<ps0>'; trap ': \"$BASH_COMMAND\"' DEBUG",
    "functions traced": "set -o functrace",
    "traps": "trap 'echo usr1' USR1; trap 'echo err' ERR; trap 'echo exit' EXIT",
    "bash-preexec": PREEXEC,
    "starship": STARSHIP,
    "a prompt written anew": 'PROMPT_COMMAND=\'PS1="$(printf "<%s>%s@ " "$?" @)"\'',
    "nounset": "set -o nounset; unset PROMPT_COMMAND PS0",
    "an error": "nosuch_program; set -u; echo $nosuch; set +u; readonly PPID=3; echo behind",
    "a return": "return 3",
    "options": "set -f -o noclobber; shopt -s extglob nullglob failglob nocasematch; IFS=0123456789x",
    "aliases": "alias printf=nosuch set=nosuch builtin=nosuch local=nosuch trap=nosuch",
    "functions": "printf() { echo mine; }; history() { command history; }; PROMPT_COMMAND=:",
    "a read-only prompt": "readonly PS1",
    "a declared array": "declare -A table=([a]=b); declare number=5; PROMPT_COMMAND='echo ${table[a]} $number'",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def ran(shell: Shell) -> list[tuple[str | None, str]]:
    return shell.commands[: len(RAN)]


@needs("bash")
@pytest.mark.parametrize("rc", RC_FILES.values(), ids=RC_FILES)
def test_bash(home: Path, rc: str) -> None:
    """Whatever a .bashrc sets, each command is marked with its exit code, and bash prints what it prints without."""
    (home / ".bashrc").write_text(BASIC + rc + "\n")
    (home / ".bash_history").write_text("echo of an earlier day\n")
    assert ran(compare(launch("bash", home), *LOOK)) == RAN


@needs("bash")
@pytest.mark.parametrize("rc", [RC_FILES["plain"], RC_FILES["starship"]], ids=["plain", "starship"])
def test_bash_as_login_shell(home: Path, rc: str) -> None:
    """A login shell reads what it reads without, in the same order, and is one."""
    (home / ".bash_profile").write_text("echo profile $0 $-; . ~/.bashrc\n")
    (home / ".profile").write_text("echo wrong\n")
    (home / ".bashrc").write_text(BASIC + rc + "\n")
    own = ("shopt -q login_shell; echo $?", "echo $HISTFILE $MAILCHECK", "shopt -p | sum; set -o | sum; ulimit -a")
    assert ran(compare(launch("bash", home, login=True), *LOOK, *own)) == RAN


@needs("bash")
@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--posix"], {"ENV": "$HOME/own"}),
        (["--posix"], {}),
        (["--rcfile", "own"], {}),
        (["--init-file", "nosuch"], {"PROMPT_COMMAND": BASIC}),
        (["--norc"], {"PS1": PROMPT, "PS2": MORE, "ENV": "kept"}),
        (["-il"], {"ENV": "kept"}),
        (["--login", "--noprofile", "-i"], {"PS1": PROMPT, "PS2": MORE, "HISTFILE": "elsewhere", "MAILCHECK": "7"}),
    ],
    ids=["posix", "posix without ENV", "rcfile", "a missing rcfile", "norc", "login", "login without profile"],
)
def test_options_of_bash(home: Path, options: list[str], env: dict[str, str]) -> None:
    """Bash reads the files that its options name, and none that they do not."""
    (home / ".bashrc").write_text(BASIC + "echo bashrc")
    (home / ".bash_login").write_text(BASIC + "echo bash_login")
    (home / "own").write_text(BASIC + "echo own")
    if options == ["--posix"] and not env:
        env = {"PS1": PROMPT, "PS2": MORE}
    own = ("echo ${ENV-unset} $HISTFILE $MAILCHECK ${POSIXLY_CORRECT-unset}", "set -o | sum; shopt -p | sum")
    assert ran(compare(launch("bash", home, *options, env=env), *LOOK, *own)) == RAN


@needs("bash")
def test_marks_of_bash(home: Path) -> None:
    """Each prompt is marked at start and end, with the folder; a command with its text; an empty line is none."""
    (home / ".bashrc").write_text(BASIC)
    (home / "a é%").mkdir()
    shell = compare(launch("bash", home), "cd 'a é%'", "", "printf 'x;y\\n'")
    host = next(mark for mark in shell.marks if mark.startswith("7;")).removeprefix("7;file://").partition("/")[0]
    prompt = ["133;A", f"7;file://{host}{home}/a%20%C3%A9%25", "133;B"]
    assert shell.marks == [
        *("133;A", f"7;file://{host}{home}", "133;B"),
        *("133;C;cmdline_url=cd%20%27a%20%C3%A9%25%27", "133;D;0", *prompt),
        *prompt,
        *("133;C;cmdline_url=printf%20%27x%3By%5Cn%27", "133;D;0", *prompt),
    ]


@needs("bash")
def test_commands_that_the_history_of_bash_does_not_keep(home: Path) -> None:
    """A command that is to be kept out of the history is marked without its text, and never with another one."""
    (home / ".bashrc").write_text(BASIC + "HISTCONTROL=ignoreboth\n")
    (home / ".bash_history").write_text("echo of an earlier day\n")
    shell = compare(launch("bash", home), " echo secret", "true", " echo secret", "true", "false")
    assert shell.commands == [(None, "0"), ("true", "0"), (None, "0"), (None, "0"), ("false", "1")]


@needs("bash")
def test_a_command_once_more(home: Path) -> None:
    """Where the history leaves out only what is the same again, that has its text."""
    (home / ".bashrc").write_text(BASIC + "HISTCONTROL=ignoredups\n")
    shell = compare(launch("bash", home), "true", "true")
    assert shell.commands == [("true", "0"), ("true", "0")]


@needs("bash")
def test_a_long_command(home: Path) -> None:
    """Of a long command the first 2000 bytes are in its mark."""
    (home / ".bashrc").write_text(BASIC)
    shell = Shell(integrate(launch("bash", home)))
    try:
        shell.run(": " + "x" * 3000)
        assert shell.commands == [(": " + "x" * 1998, "0")]
    finally:
        shell.close()


@needs("bash")
def test_shells_in_a_shell(home: Path) -> None:
    """A shell that is started in one, or in its place, is not integrated, and finds no variable of ours."""
    (home / ".bashrc").write_text(BASIC)
    look = f"{OURS}; declare -F | grep orbit; echo $SHLVL"
    child = 'env PS1="$PS1" bash --norc --noprofile'
    shell = compare(launch("bash", home), child, look, "exit", "exec " + child, look)
    assert [command for command, _ in shell.commands] == [child]


@needs("bash", "zsh")
@pytest.mark.parametrize("shell", ["bash --norc", "zsh -f"])
def test_a_startup_file_that_runs_another_shell(home: Path, shell: str) -> None:
    """Where a startup file runs another shell in its place, that one is as it would be, without marks."""
    (home / ".bashrc").write_text(BASIC + f"export PS1; exec {shell}\n")
    assert compare(launch("bash", home), OURS, "echo $ENV $ZDOTDIR").marks == []


@needs("bash", "zsh")
@pytest.mark.parametrize(("name", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc")], ids=["bash", "zsh"])
def test_ctrl_c_at_the_prompt(home: Path, name: str, file: str) -> None:
    """A line that is given up with Ctrl-C is no command; the next one is."""
    (home / file).write_text("PS1='@@ '\n")
    shell = Shell(integrate(launch(name, home)))
    try:
        shell.give_up_line("abandoned")
        shell.type("(exit 5)\r")
        shell.wait_until(lambda _: len(shell.commands) == 1)
        assert shell.commands == [("(exit 5)", "5")]
    finally:
        shell.close()


@needs("bash")
def test_errexit_of_bash(home: Path) -> None:
    """With `set -e` the shell goes on until a command of the user's fails."""
    (home / ".bashrc").write_text(BASIC)
    assert compare(launch("bash", home), "set -e", "true", "", "cd .").commands[1:] == [("true", "0"), ("cd .", "0")]


@needs("bash")
def test_xtrace_of_bash(home: Path) -> None:
    """With `set -x` nothing of ours is traced."""
    (home / ".bashrc").write_text(BASIC + "set -x\n")
    assert compare(launch("bash", home), "true", "false").commands == [("true", "0"), ("false", "1")]


@needs("bash")
@pytest.mark.parametrize("variable", ["PROMPT_COMMAND", "PS0", "PS0 PS1 PROMPT_COMMAND"])
def test_variables_of_bash_that_cannot_be_set(home: Path, variable: str) -> None:
    """Where a variable is read-only the marks that need it are left out, without a word."""
    (home / ".bashrc").write_text(f"{BASIC}PS0= PROMPT_COMMAND=; readonly {variable}\n")
    shell = compare(launch("bash", home), *LOOK)
    assert ([code for _, code in shell.commands[: len(RAN)]] == [code for _, code in RAN]) == ("_" not in variable)


@needs("bash")
def test_an_older_bash(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before bash 5.1, where PROMPT_COMMAND is one text, each command of it finds $? as it was."""
    for name in ("orbit.bash", "start.bash"):
        text = Path(files.FOLDER, name).read_text().replace("BASH_VERSINFO", "old_version")
        (tmp_path / name).write_text("old_version=(5 0)\n" + text if name == "orbit.bash" else text)
    monkeypatch.setattr(files, "BASH", str(tmp_path / "start.bash"))
    (home / ".bashrc").write_text(BASIC + 'PROMPT_COMMAND=\'printf "<%s>" "$?"\'\n')
    shell = compare(launch("bash", home), *(line for line in LOOK if "PROMPT_COMMAND" not in line))
    assert ran(shell) == RAN


@needs("bash")
def test_in_ones_own_file(home: Path) -> None:
    """The printed snippet does the same from the user's own file, once, in a shell that is integrated too."""
    (home / "snippet").write_text(files.snippet("bash"))
    (home / ".bashrc").write_text(BASIC + '. ~/snippet\neval "$(cat ~/snippet)"\n')
    for how in (launch("bash", home), integrate(launch("bash", home))):
        shell = Shell(how)
        try:
            shell.run("false")
            kinds = [mark[:5] for mark in shell.marks]
            assert kinds == ["133;A", "7;fil", "133;B", "133;C", "133;D", "133;A", "7;fil", "133;B"]
        finally:
            shell.close()


ZSH = "PS1='@@ ' PS2='%%%% ' PROMPT_EOL_MARK=\nHISTFILE=~/.hist HISTSIZE=9 SAVEHIST=9\n"
ZSH_LOOK = (
    "false | true",
    "echo $? $pipestatus",
    "(exit 3)",
    "echo $?",
    "echo last",
    "echo $_",
    "",
    "cd /tmp",
    "echo $?",
    "for i in 1 2",
    "do echo $i; done",
    "trap; echo $- $0 ${ZDOTDIR-unset}; alias",
    OURS,
    "echo é",
)
ZSH_RAN = [(line.replace("${PIPESTATUS[@]}", "$pipestatus"), code) for line, code in RAN]
ZSH_FILES = {
    "plain": "",
    "hooks": 'precmd() { print -n "<$?>" }; preexec() { print -r "<$1>" }; autoload -U add-zsh-hook',
    "its own list of hooks": 'precmd_functions=(mine); mine() { print -n "<$?>" }',
    "a prompt written anew": 'mine() { PS1="<$?>@@ " }; precmd_functions+=(mine)',
    "options": "setopt nounset ksh_arrays sh_word_split glob_subst warn_create_global no_clobber extended_glob",
    "errors end it": "setopt err_return",
    "prompts without escapes": "setopt no_prompt_percent prompt_subst; PS2='%% '",
    "an error": "nosuch_program; echo ${nosuch?gone}; echo behind",
    "a return": "return 3",
    "aliases": "alias print=nosuch -g emulate=nosuch builtin=nosuch typeset=nosuch",
    "a read-only prompt": "typeset -r PS1",
    "no history": "unset HISTFILE; HISTSIZE=0",
}


@needs("zsh")
@pytest.mark.parametrize("rc", ZSH_FILES.values(), ids=ZSH_FILES)
def test_zsh(home: Path, rc: str) -> None:
    """Whatever a .zshrc sets, each command is marked with its exit code, and zsh prints what it prints without."""
    (home / ".zshrc").write_text("unsetopt zle\n" + ZSH + rc + "\n")
    found = ran(compare(launch("zsh", home), *ZSH_LOOK))
    assert found[-len(ZSH_RAN) + 1 :] == ZSH_RAN[1:]
    # The first prompt is not marked where the list of hooks was set anew, and its command has no start.
    assert found[0][1] == "0"


@needs("zsh")
@pytest.mark.parametrize("own", [False, True], ids=["HOME", "ZDOTDIR"])
def test_startup_files_of_zsh(home: Path, own: bool) -> None:
    """A login shell reads all of its files in order, in the user's own ZDOTDIR, which is left as it was."""
    folder = home / "own" if own else home
    folder.mkdir(exist_ok=True)
    for name in (".zshenv", ".zprofile", ".zshrc", ".zlogin"):
        (folder / name).write_text(f"{ZSH}echo {name} ${{ZDOTDIR-unset}} $- ; env | grep ZDOTDIR\n")
    env = {"ZDOTDIR": str(folder)} if own else {}
    shell = compare(launch("zsh", home, login=True, env=env), "echo ${ZDOTDIR-unset}", OURS)
    assert [code for _, code in shell.commands] == ["0", "0" if own else "1"]


@needs("zsh")
def test_a_zshenv_that_moves_the_folder(home: Path) -> None:
    """A .zshenv that sets ZDOTDIR has zsh read the other files there."""
    (home / "own").mkdir()
    (home / ".zshenv").write_text("ZDOTDIR=~/own\n")
    (home / "own" / ".zshrc").write_text(ZSH + "echo own\n")
    assert compare(launch("zsh", home), "true").commands == [("true", "0")]


@needs("zsh")
def test_marks_of_zsh(home: Path) -> None:
    """Each prompt is marked at start and end, with the folder; a command with its text; an empty line is none."""
    (home / ".zshrc").write_text(ZSH)
    (home / "a é%").mkdir()
    shell = compare(launch("zsh", home), "cd 'a é%'", "", "setopt hist_ignore_space", " echo hidden")
    host = next(mark for mark in shell.marks if mark.startswith("7;")).removeprefix("7;file://").partition("/")[0]
    prompt = ["133;A", f"7;file://{host}{home}/a%20%C3%A9%25", "133;B"]
    assert shell.marks == [
        *("133;A", f"7;file://{host}{home}", "133;B"),
        *("133;C;cmdline_url=cd%20%27a%20%C3%A9%25%27", "133;D;0", *prompt),
        *prompt,
        *("133;C;cmdline_url=setopt%20hist_ignore_space", "133;D;0", *prompt),
        *("133;C", "133;D;0", *prompt),
    ]


@needs("zsh")
def test_shells_in_zsh(home: Path) -> None:
    """A zsh that is started in one, or in its place, is not integrated."""
    (home / ".zshrc").write_text(ZSH)
    shell = compare(launch("zsh", home), "zsh", "echo $SHLVL", "exit", "exec zsh", OURS)
    assert [command for command, _ in shell.commands] == ["zsh"]


@needs("zsh")
def test_zsh_in_ones_own_file(home: Path) -> None:
    """The printed snippet does the same from the user's own file, once, in a shell that is integrated too."""
    (home / "snippet").write_text(files.snippet("zsh"))
    (home / ".zshrc").write_text(ZSH + 'source ~/snippet\neval "$(cat ~/snippet)"\n')
    for how in (launch("zsh", home), integrate(launch("zsh", home))):
        shell = Shell(how)
        try:
            shell.run("false")
            kinds = [mark[:5] for mark in shell.marks]
            assert kinds == ["133;A", "7;fil", "133;B", "133;C", "133;D", "133;A", "7;fil", "133;B"]
        finally:
            shell.close()


@needs("fish")
def test_fish_in_ones_own_file(home: Path) -> None:
    """Fish marks its commands: from 4.0 on by itself, before with the printed snippet."""
    folder = home / ".config" / "fish"
    folder.mkdir(parents=True)
    (folder / "orbit.fish").write_text(files.snippet("fish"))
    (folder / "config.fish").write_text(
        "function fish_greeting; end\nfunction fish_prompt; printf '@@ '; end\nsource ~/.config/fish/orbit.fish\n"
    )
    shell = Shell(launch("fish", home))
    try:
        shell.type("false\r")
        shell.wait_until(lambda _: len(shell.commands) >= 1)
        shell.type("echo 'é;'\r")
        shell.wait_until(lambda _: len(shell.commands) >= 2)
        assert shell.commands == [("false", "1"), ("echo 'é;'", "0")]
    finally:
        shell.close()


@pytest.mark.parametrize(
    "words",
    [
        ["bash", "script"], ["bash", "-c", "true"], ["bash", "-x"], ["bash", "-r"], ["bash", "-p"],
        ["bash", "-ic", "x"],
        ["bash", "--nosuch"], ["bash", "--rcfile"], ["bash", "-O", "extglob"], ["bash", "-l", "--norc"],
        ["bash", "--", "x"], ["zsh", "-f"], ["zsh", "-c", "true"], ["zsh", "script"], ["zsh", "-o", "norcs"],
        ["sh"], ["sh", "-l"], ["dash"], ["fish"], ["rbash"], ["ssh", "-tt", "host", "bash"], ["vim", "bash"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_left_alone(home: Path, words: list[str]) -> None:
    """A script, a command, and every option that is not known are started as without the integration."""
    how = launch("bash", home)
    for file in (words[0], f"/usr/bin/{words[0]}"):
        each = how.__class__(
            file=file.encode(), argv=tuple(word.encode() for word in words), env=how.env, folders=how.folders
        )
        assert integrate(each) == each


def test_odd_surroundings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell is started so where our files are gone, ENV cannot name them, or something would be lost."""
    bash, login = launch("bash", home), launch("bash", home, login=True)
    for env in ({"SHELLOPTS": "xtrace"}, {"BASHOPTS": "x"}):
        assert integrate(launch("bash", home, env=env)).argv == bash.argv
    odd = launch("bash", home, login=True, env={"BASH_FUNC_a-b%%": "() { :; }"})
    assert integrate(odd) == odd
    plain = launch("bash", home, login=True, env={"BASH_FUNC_module%%": "() { :; }"})
    assert integrate(plain) != plain
    left = launch("bash", home, env={"__ORBIT_START": "rc", "__ORBIT_RC": "x"})
    assert integrate(left).env == {**bash.env, b"__ORBIT_START": b"rc"}
    stand_in = home / "$(x)"
    stand_in.write_text("")
    monkeypatch.setattr(files, "BASH", str(stand_in))
    assert integrate(login) == login
    monkeypatch.setattr(files, "BASH", "/nosuch/start.bash")
    monkeypatch.setattr(files, "ZSH", "/nosuch")
    assert integrate(bash) == bash
    assert integrate(login) == login
    zsh = bash.__class__(file=b"zsh", argv=(b"zsh",), env={}, folders=())
    assert integrate(zsh) == zsh


def test_a_system_that_moves_the_folder_of_zsh(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system's own zshenv names ZDOTDIR, ours is not set: it would be lost, and a variable of ours left."""
    file = tmp_path / "zshenv"
    file.write_text("export ZDOTDIR=~/.config/zsh\n")
    monkeypatch.setattr("orbitd.sessions.shell_integration._GLOBAL_ZSHENV", (str(file),))
    how = launch("bash", home).__class__(file=b"zsh", argv=(b"-zsh",), env={b"ZDOTDIR": b"/x"}, folders=())
    assert integrate(how) == how
