# What zsh reads first in a session of Orbit, whose ZDOTDIR is this folder: it puts the user's ZDOTDIR back and reads
# the user's .zshenv. All other startup files are then found by zsh itself. Aliases of /etc/zsh/zshenv may be on: hence
# the quotes.

'builtin' 'typeset' '-g' __orbit_folder="${${(%):-%x}:A:h:h}"
if [[ -n "${__ORBIT_ZDOTDIR+set}" ]]; then
  'builtin' 'export' ZDOTDIR="$__ORBIT_ZDOTDIR"
  'builtin' 'unset' '__ORBIT_ZDOTDIR'
else
  'builtin' 'unset' 'ZDOTDIR'
fi

# Installed first, and at work from the first prompt on: the user's file may fail, and be the last that is read.
'builtin' 'source' "$__orbit_folder/orbit.zsh"
'builtin' 'unset' '__orbit_folder'

# zsh passes over a file that it cannot read.
[[ ! -r "${ZDOTDIR-$HOME}/.zshenv" ]] || 'builtin' 'source' "${ZDOTDIR-$HOME}/.zshenv"
