# What bash reads in a session of Orbit in the place of the user's startup files: it reads those, in bash's own order
# (bash(1), INVOCATION), and then installs the integration. In __ORBIT_START is what orbitd started:
#
#   rc       as --rcfile: bash itself has read the system's file; the user's is __ORBIT_RC, or ~/.bashrc
#   login    a login shell, which reads no --rcfile: --posix has it read ENV alone, and is turned off here
#   none     the same, for --norc and --noprofile
#   posix    a shell in POSIX mode, which reads the user's own ENV
#
# The variables are gone before any file of the user's is read: it may start another shell, or exec one.

__orbit_start=${__ORBIT_START-}
if [[ $__orbit_start != rc* ]]; then
  unset ENV
  [[ -z ${__ORBIT_ENV+set} ]] || export ENV=$__ORBIT_ENV
fi
case $__orbit_start in
  login* | none*)
    set +o posix
    shopt -u inherit_errexit 2>/dev/null # as POSIX mode has it, and `set +o posix` leaves it
    # In POSIX mode these begin with other values, where the environment has none.
    [[ $__orbit_start != *histfile* ]] || HISTFILE=$HOME/.bash_history
    [[ $__orbit_start != *mailcheck* ]] || MAILCHECK=60
    ;;
esac
__orbit_file=${__ORBIT_RC-~/.bashrc}
unset __ORBIT_START __ORBIT_RC __ORBIT_ENV

# The functions come first: the user's files may set a DEBUG trap, and aliases.
. "${BASH_SOURCE[0]%/*}/orbit.bash"

# Not in a function, where `declare` makes local variables. What is not there is passed over, what cannot be read is not.
case $__orbit_start in
  rc*) if [[ -e $__orbit_file ]]; then . "$__orbit_file"; fi ;;
  login*)
    if [[ -e /etc/profile ]]; then . /etc/profile; fi
    if [[ -e ~/.bash_profile ]]; then
      . ~/.bash_profile
    elif [[ -e ~/.bash_login ]]; then
      . ~/.bash_login
    elif [[ -e ~/.profile ]]; then
      . ~/.profile
    fi
    ;;
  posix*)
    if [[ -n ${ENV-} ]]; then
      eval "__orbit_file=\"$ENV\"" # bash expands it
      if [[ -e $__orbit_file ]]; then . "$__orbit_file"; fi
    fi
    ;;
esac

# Install, where it changes what it must alone. The element has an index far from the user's, and leaves
# $PROMPT_COMMAND, which is the first one, as it is.
for __orbit_step in ${__orbit_none+${__orbit_none:0*(__orbit_may=$({ \builtin set +x; } 2>/dev/null; __orbit_check))}${__orbit_if[__orbit_may & 1]:+${__orbit_ps0#"${PS0:=$__orbit_ps0}"}}${__orbit_if[(__orbit_may & 2) / 2]:+${__orbit_element#"${PROMPT_COMMAND[100]:=$__orbit_element}"}}${__orbit_if[(__orbit_may & 4) / 4]:+prompt_command}}; do __orbit_step; done
