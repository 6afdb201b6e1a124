//! `hikae completions`: scripts that make shells complete commands, images, generations and paths inside images.

use clap_complete::env::Shells;

use crate::exit::{DONE, Failure};

/// Prints the completion script of a shell.
///
/// bash: source <(hikae completions bash); zsh: source <(hikae completions zsh); fish: hikae completions fish | source;
/// PowerShell: hikae completions powershell | Out-String | Invoke-Expression. The script asks hikae itself, so generations and paths inside images
/// (IMAGE@GEN:/p1/...) are completed too.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    #[value(name = "powershell")]
    Pwsh,
    Elvish,
}

/// bash cuts words at `:`, `@` and `=`, which paths inside images hold: the script puts them together again, and takes off what bash will not replace.
const BASH: &str = r#"_hikae() {
    local rest="${COMP_LINE:0:COMP_POINT}" trimmed word current kept reply i
    local words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        trimmed="${rest#"${rest%%[![:space:]]*}"}"
        ((i == COMP_CWORD)) && word="$trimmed"
        if ((i > 0)) && [[ -n $rest && $trimmed == "$rest" ]]; then
            words[${#words[@]}-1]+="$word"
        else
            words+=("$word")
        fi
        rest="${trimmed:${#word}}"
    done
    current="${words[${#words[@]}-1]}"
    kept=""
    [[ $current == *[:@=]* ]] && kept="${current%"${current##*[:@=]}"}"
    COMPREPLY=()
    while IFS= read -r -d $'\013' reply || [[ -n $reply ]]; do
        [[ $reply == "$kept"* ]] && reply="${reply#"$kept"}"
        printf -v reply '%q' "$reply"
        COMPREPLY+=("$reply")
    done < <(_CLAP_IFS=$'\013' _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) COMPLETE=bash hikae -- "${words[@]}" 2>/dev/null)
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} != *[/:@=] ]]; then
        COMPREPLY[0]+=" "
    fi
}
complete -o nospace -o nosort -F _hikae hikae
"#;

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let name = match arguments.shell {
        Shell::Bash => {
            print!("{BASH}");
            return Ok(DONE);
        }
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Pwsh => "powershell",
        Shell::Elvish => "elvish",
    };
    let shells = Shells::builtins();
    let completer = shells.completer(name).expect("the shell is one of the built-in ones");
    let mut script = Vec::new();
    completer
        .write_registration("COMPLETE", "hikae", "hikae", "hikae", &mut script)
        .map_err(|error| imgfmt::Error::io("write", "the script", error))?;
    print!("{}", String::from_utf8_lossy(&script));
    Ok(DONE)
}
