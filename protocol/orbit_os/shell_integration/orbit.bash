# Orbit's integration of bash: the shell marks prompts and commands (OSC 133) and says its folder (OSC 7).
#
#   OSC 133;A  a prompt follows          OSC 133;C  a command starts; `cmdline_url=` has it, percent-encoded
#   OSC 133;B  what is typed follows     OSC 133;D  it has ended; the exit status
#
# Nothing else may change, also for a DEBUG trap, `set -x`, `set -e` and `set -u` of the user's. A DEBUG trap runs
# before each simple command and for each turn of a loop, but neither in a command substitution nor for a loop over
# nothing. So all of this stands in the words of such loops, where `${name:=word}` and arithmetic assign, and
# subshells print. bash itself saves $?, $_ and PIPESTATUS around PROMPT_COMMAND and PS0.

# PS0 is of bash 4.4. The console of Linux and dumb terminals would show the marks.
if [[ $- == *i* && ${TERM-} != dumb && ${TERM-} != linux && -z ${__orbit_none+set} ]] &&
  ((BASH_VERSINFO[0] > 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4))); then
  __orbit_none='' __orbit_if=('' set) __orbit_number='\#'
  __orbit_may=0 __orbit_ran=-1 __orbit_line=-1 __orbit_status=0 __orbit_flags=''
  __orbit_mark='\[\e]133;B\a\]'
  __orbit_ps0='$({ \builtin set +x; } 2>/dev/null; __orbit_command)'
  # \# is the number of the next command: neither an empty line nor Ctrl-C changes it. HISTCMD counts the history.
  __orbit_seen='${__orbit_none:0*(__orbit_ran=${__orbit_number@P})} ${__orbit_none:0*(__orbit_line=HISTCMD)}'
  __orbit_element='for __orbit_step in $({ __orbit_status=$? __orbit_flags=$-; \builtin set +x; } 2>/dev/null; __orbit_prompt) '$__orbit_seen'; do __orbit_step; done'

  # Set `encoded` to text for a URL, its first 2000 bytes. In a subshell only: with the locale, characters are bytes.
  __orbit_encode() {
    LC_ALL=C
    builtin local rest="${1:0:2000}" plain
    encoded=''
    while [[ -n $rest ]]; do
      plain=${rest%%[!a-zA-Z0-9/._~-]*}
      encoded+=$plain rest=${rest#"$plain"}
      if [[ -n $rest ]]; then
        builtin printf -v plain '%02X' "'$rest"
        encoded+=%${plain: -2} rest=${rest:1} # a byte above 127 may be negative
      fi
    done
  }

  # Run by PS0 before each command, in a subshell: print its mark, with the command if the history has it.
  __orbit_command() {
    builtin set +euf
    builtin local line='' encoded
    # A command that is not new in the history is the one before once more, or not to be kept: HISTCONTROL, HISTIGNORE.
    if ((HISTCMD != __orbit_line)) || [[ ! ${HISTCONTROL-} =~ space|both && -z ${HISTIGNORE-} && -o history ]]; then
      line=$(HISTTIMEFORMAT='' \builtin history 1)
      line=${line#"${line%%[![:space:]]*}"}
      line=${line#"${line%%[![:digit:]]*}"}
      line=${line:2}
    fi
    if [[ -n $line ]]; then
      __orbit_encode "$line"
      builtin printf '\e]133;C;cmdline_url=%s\a' "$encoded"
    else
      builtin printf '\e]133;C\a'
    fi
  } 2>/dev/null

  # Run by PROMPT_COMMAND before each prompt, in a subshell: print the marks to the terminal, and to the loop that it
  # stands in what this has to do.
  __orbit_prompt() {
    builtin set +euf
    builtin local encoded
    if ((__orbit_ran >= 0 && __orbit_ran != ${__orbit_number@P})); then
      builtin printf '\e]133;D;%s\a' "$__orbit_status" >&2
    fi
    __orbit_encode "$PWD"
    builtin printf '\e]133;A\a\e]7;file://%s%s\a' "${HOSTNAME-}" "$encoded" >&2
    if [[ ${PS0-} != *__orbit_command* && ${PS0-} != *'\e]133;C'* && ${PS0@a} != *r* ]]; then
      builtin printf 'before_command '
    fi
    if [[ ${PS1-} != *"$__orbit_mark"* && ${PS1@a} != *r* && $__orbit_flags != *x* && -z $(\builtin trap -p DEBUG) ]]; then
      builtin printf 'after_prompt '
    fi
  }

  # Print what is to be installed: 1 PS0, 2 an element of PROMPT_COMMAND, 4 a part of its text.
  __orbit_check() {
    builtin set +euf
    builtin local variable bits=0
    variable=$(\builtin declare -p PROMPT_COMMAND 2>/dev/null)
    if [[ $variable != *__orbit_prompt* && ! $variable =~ ^declare\ -[a-zA-Z]*r ]]; then
      builtin shopt -q promptvars && [[ -z ${PS0-} && ${PS0@a} != *r* ]] && bits=1
      if ((BASH_VERSINFO[0] > 5 || (BASH_VERSINFO[0] == 5 && BASH_VERSINFO[1] >= 1))); then
        ((bits |= 2))
      else
        ((bits |= 4))
      fi
    fi
    builtin printf '%d' "$bits"
  } 2>/dev/null

  __orbit_step() {
    case $__orbit_step in
      before_command)
        # Without promptvars nothing in it is expanded.
        if builtin shopt -q promptvars; then PS0+=$__orbit_ps0; else PS0+='\e]133;C\a'; fi
        ;;
      after_prompt) PS1+=$__orbit_mark ;;
      prompt_command)
        # Before bash 5.1 it is one text, in which the status is gone after the first command.
        PROMPT_COMMAND='for __orbit_step in ${__orbit_none:0*(__orbit_status=$?)}; do :; done; (exit "$__orbit_status")
'${PROMPT_COMMAND-}'
'${__orbit_element/__orbit_status=\$\? }
        ;;
    esac
    return 0
  }
fi
