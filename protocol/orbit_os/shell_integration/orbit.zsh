# Orbit's integration of zsh: the shell marks prompts and commands (OSC 133) and says its folder (OSC 7).
#
#   OSC 133;A  a prompt follows          OSC 133;C  a command starts; `cmdline_url=` has it, percent-encoded
#   OSC 133;B  what is typed follows     OSC 133;D  it has ended; the exit status
#
# zsh itself saves $? and pipestatus around hooks. Options and a DEBUG trap of the user's end at the first line of each
# hook, which is one list: that much is traced, as of any hook.

# The console of Linux and dumb terminals would show the marks.
if [[ -o interactive && "${TERM-}" != 'dumb' && "${TERM-}" != 'linux' && -z "${functions[__orbit_precmd]-}" ]]; then
  # To the terminal, wherever standard output is.
  function __orbit_print { 'builtin' 'print' '-rn' '--' "$1" >/dev/tty } 2>/dev/null

  # Set REPLY to text for a URL, its first 2000 bytes.
  function __orbit_encode {
    'builtin' 'emulate' -L zsh -o extended_glob -o no_multibyte
    REPLY="${1[1,2000]//(#m)[^a-zA-Z0-9\/._~-]/%${(l:2::0:)$(([##16]#MATCH))}}"
  }

  function __orbit_precmd {
    'builtin' 'typeset' REPLY __orbit_status="$?" __orbit_percent="${options[promptpercent]}" && 'builtin' 'emulate' -L zsh -o no_xtrace && 'builtin' 'trap' - DEBUG
    if [[ "${__orbit_ran-}" == 'yes' ]]; then
      __orbit_print $'\e]133;D;'"$__orbit_status"$'\a'
    fi
    'builtin' 'typeset' -g __orbit_ran='no'
    __orbit_encode "$PWD"
    __orbit_print $'\e]133;A\a\e]7;file://'"${HOST-}$REPLY"$'\a'
    # A hook that comes after this one may write the prompt anew.
    if [[ "${precmd_functions[-1]-}" != '__orbit_precmd' && "${(t)precmd_functions}" != *readonly* ]]; then
      precmd_functions=("${(@)precmd_functions:#__orbit_precmd}" '__orbit_precmd')
    fi
    if [[ "$__orbit_percent" == 'on' && "${PS1-}" != *$'%{\e]133;B\a%}'* && "${(t)PS1}" != *readonly* ]]; then
      PS1+=$'%{\e]133;B\a%}'
    fi
  } 2>/dev/null

  function __orbit_preexec {
    'builtin' 'typeset' REPLY __orbit_space="${options[histignorespace]}" && 'builtin' 'emulate' -L zsh -o no_xtrace && 'builtin' 'trap' - DEBUG
    'builtin' 'typeset' -g __orbit_ran='yes'
    # A startup file may have set the list.
    if (( ! ${precmd_functions[(Ie)__orbit_precmd]} )); then
      precmd_functions+=('__orbit_precmd')
    fi
    REPLY="${1:-${3-}}"
    if [[ -z "$REPLY" || ( "$__orbit_space" == 'on' && "$REPLY" == ' '* ) ]]; then
      __orbit_print $'\e]133;C\a' # it is not to be kept
    else
      __orbit_encode "$REPLY"
      __orbit_print $'\e]133;C;cmdline_url='"$REPLY"$'\a'
    fi
  } 2>/dev/null

  'builtin' 'typeset' -ag precmd_functions preexec_functions
  precmd_functions+=('__orbit_precmd')
  preexec_functions+=('__orbit_preexec')
fi
