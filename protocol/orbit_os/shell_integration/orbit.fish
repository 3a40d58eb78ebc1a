# Orbit's integration of fish before 4.0: the shell marks prompts and commands (OSC 133) and says its folder (OSC 7).
# Newer ones do so by themselves.
#
#   OSC 133;A  a prompt follows          OSC 133;C  a command starts; `cmdline_url=` has it, percent-encoded
#                                        OSC 133;D  it has ended; the exit status

if status is-interactive
    and not contains -- "$TERM" dumb linux
    and not functions -q __orbit_prompt
    and string match -qr '^[0-3]\.' -- $version
    function __orbit_prompt --on-event fish_prompt
        printf '\e]133;A\a\e]7;file://%s%s\a' $hostname (string escape --style=url -- $PWD)
    end
    function __orbit_preexec --on-event fish_preexec
        # What begins with a blank is not kept in the history.
        if string match -q ' *' -- "$argv"
            printf '\e]133;C\a'
        else
            set -l line (string sub -l 2000 -- "$argv" | string collect)
            printf '\e]133;C;cmdline_url=%s\a' (string escape --style=url -- "$line")
        end
    end
    function __orbit_postexec --on-event fish_postexec
        printf '\e]133;D;%s\a' $status
    end
end
