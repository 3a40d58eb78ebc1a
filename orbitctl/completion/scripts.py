"""What `orbitctl completion SHELL` prints: a function that asks `orbitctl _complete`, and does what it answers."""

BASH = r"""# Completion of orbitctl for bash, 3.2 and later, with the package bash-completion or without. In ~/.bashrc:
#     eval "$(orbitctl completion bash)"
_orbitctl() {
    local IFS=$' \t\n' program=orbitctl line=${COMP_LINE:0:COMP_POINT} answer one word rest at newline=$'\n'
    [[ $1 == */* ]] && program=${1/#\~\//$HOME/}
    if [[ -z $line ]]; then
        line="${COMP_WORDS[*]:0:COMP_CWORD+1}"
    fi
    COMPREPLY=()
    answer=$(command "$program" _complete bash "$line" "$COMP_WORDBREAKS" 2>/dev/null </dev/null) || return 0
    case $answer in
    words"$newline"*)
        while IFS= read -r one; do
            COMPREPLY+=("$one")
        done <<<"${answer#*"$newline"}"
        ;;
    files)
        compopt -o default 2>/dev/null || while IFS= read -r one; do COMPREPLY+=("$one"); done < <(compgen -f -- "$2")
        ;;
    folders)
        compopt -o dirnames 2>/dev/null || while IFS= read -r one; do COMPREPLY+=("$one"); done < <(compgen -d -- "$2")
        ;;
    command*)
        # The word of COMP_WORDS, which are cut at other places, that begins there.
        at=${answer#command } rest=$line word=0
        while ((word < COMP_CWORD && ${#line} - ${#rest} < at)); do
            rest=${rest#*"${COMP_WORDS[word]}"} word=$((word + 1))
            rest=${rest#"${rest%%[![:space:]]*}"}
        done
        _orbitctl_command "$word" "$2"
        ;;
    esac
}

# Complete another command, whose name is word $1; $2 is the word at the cursor, as bash gives it.
_orbitctl_command() {
    local name=${COMP_WORDS[$1]} function one
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif ((COMP_CWORD == $1)); then
        while IFS= read -r one; do
            COMPREPLY+=("$one")
        done < <(compgen -c -- "$2" | LC_ALL=C command sort -u)
        [[ $2 == */* ]] && compopt -o filenames 2>/dev/null
    else
        function=$(complete -p -- "${name##*/}" 2>/dev/null)
        if [[ $function == *' -F '* ]]; then
            function=${function#* -F } function=${function%% *}
            COMP_LINE=${COMP_WORDS[*]:$1} COMP_POINT=${#COMP_LINE}
            COMP_WORDS=("${COMP_WORDS[@]:$1}") COMP_CWORD=$((COMP_CWORD - $1))
            "$function" "$name" "$2" "${COMP_WORDS[COMP_CWORD - 1]}"
        else
            compopt -o bashdefault -o default 2>/dev/null ||
                while IFS= read -r one; do COMPREPLY+=("$one"); done < <(compgen -f -- "$2")
        fi
    fi
    return 0
}

complete -o nosort -F _orbitctl orbitctl 2>/dev/null || complete -F _orbitctl orbitctl
"""

ZSH = r"""#compdef orbitctl
# Completion of orbitctl for zsh. In ~/.zshrc, before or after compinit; or this as a file `_orbitctl` in $fpath.
#     eval "$(orbitctl completion zsh)"
_orbitctl() {
    local program=orbitctl
    local -a given lines values shown expl
    local line
    integer width=0
    [[ $words[1] == */* ]] && program=${~words[1]}
    (( CURRENT > 2 )) && given=("${(@Q)words[2,CURRENT-1]}")
    lines=("${(@f)$(command $program _complete zsh "${given[@]}" "${(Q)PREFIX}" 2>/dev/null </dev/null)}")
    case $lines[1] in
    words)
        shift lines
        values=("${(@)lines%%$'\t'*}")
        for line in "${values[@]}"; do
            (( ${(m)#line} > width )) && width=${(m)#line}
        done
        for line in "${lines[@]}"; do
            if [[ $line == *$'\t'* ]]; then
                shown+=("${(mr:width:)${line%%$'\t'*}}  -- ${line#*$'\t'}")
            else
                shown+=("$line")
            fi
        done
        if [[ "${(j::)lines}" == *$'\t'* ]]; then
            _wanted -V orbitctl expl orbitctl compadd -l -d shown -a values
        else
            _wanted -V orbitctl expl orbitctl compadd -a values
        fi
        ;;
    files) _files ;;
    folders) _files -/ ;;
    command*)
        integer at=$(( ${lines[1]#command } + 1 ))
        shift $at words
        (( CURRENT -= at ))
        _normal
        ;;
    esac
}

# compinit forgets what was registered before it; at the first prompt it has run, if the user has it run at all.
_orbitctl_register() {
    if (( ! $+functions[compdef] )); then
        autoload -Uz compinit
        compinit -i
    fi
    compdef _orbitctl orbitctl
    precmd_functions=("${(@)precmd_functions:#_orbitctl_register}")
    unfunction _orbitctl_register
}

if [[ $funcstack[1] == _orbitctl ]]; then
    unfunction _orbitctl_register
    _orbitctl "$@"
else
    (( $+functions[compdef] )) && compdef _orbitctl orbitctl
    typeset -ga precmd_functions
    precmd_functions+=(_orbitctl_register)
fi
"""

FISH = r"""# Completion of orbitctl for fish: a file orbitctl.fish in ~/.config/fish/completions; or in config.fish:
#     orbitctl completion fish | source
function __orbitctl_complete
    set -l given (commandline -opc)
    set -l program orbitctl
    while set -q given[1]; and not string match -q -r '(^|/)orbitctl$' -- $given[1]
        set -e given[1]
    end
    string match -q '*/*' -- "$given[1]"; and set program $given[1]
    set -e given[1]
    set -l current (commandline -ct)
    set -l typed (string unescape -- $current)
    set -l lines (command $program _complete fish $given "$typed" 2>/dev/null </dev/null)
    switch "$lines[1]"
        case words
            printf '%s\n' $lines[2..-1]
        case files
            __fish_complete_path $current
        case folders
            __fish_complete_directories $current ''
        case 'command *'
            set -l at (math (string replace 'command ' '' -- $lines[1]) + 1)
            set -l line (string escape -- $given[$at..-1]) $current
            complete -C (string join ' ' -- $line)
    end
end
complete -c orbitctl -e
complete -c orbitctl -f -k -a '(__orbitctl_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
