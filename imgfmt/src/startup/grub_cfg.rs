//! grub.cfg: what a menu of GRUB looks for and starts.
//!
//! The language is a shell's; it is not run. Commands are read in their order, conditions are taken as true both ways, and variables that are set
//! to plain text are put in.
//!
//! Source: GRUB manual 2.06, chapters "Writing your own configuration file" and "Commands".

use std::collections::BTreeMap;

/// Most commands of a file that are read.
const MAX_COMMANDS: usize = 50_000;
/// Longest text that a word can become when variables are put in.
const MAX_WORD: usize = 4096;

/// One command with its arguments, quotes removed.
pub type Command = Vec<String>;

/// An entry of the menu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its title. Untrusted text.
    pub title: String,
    /// Its id, where it has one.
    pub id: Option<String>,
    /// It stands in a submenu.
    pub nested: bool,
    /// Its commands.
    pub commands: Vec<Command>,
}

/// A parsed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Commands outside of entries.
    pub commands: Vec<Command>,
    /// The menu.
    pub entries: Vec<Entry>,
}

impl Config {
    /// The entry that is started unless somebody chooses: the one that `default` names, or the first.
    pub fn default_entry(&self) -> Option<&Entry> {
        let set = |command: &Command| {
            let (name, value) = command.get(1)?.split_once('=')?;
            (command.first()? == "set" && name == "default").then(|| value.to_owned())
        };
        // The last one that is plain text: "${next_entry}" and the like mean what somebody chose once.
        let named = self.commands.iter().filter_map(set).rfind(|value| !value.contains('$'));
        let top = || self.entries.iter().filter(|entry| !entry.nested);
        let found = named.and_then(|named| match named.parse::<usize>() {
            Ok(number) => top().nth(number),
            Err(_) => {
                let is_named = |entry: &&Entry| entry.id.as_ref() == Some(&named) || entry.title == named;
                let last = named.rsplit('>').next().unwrap_or(&named).to_owned();
                let is_last = |entry: &&Entry| entry.id.as_ref() == Some(&last) || entry.title == last;
                self.entries.iter().find(is_named).or_else(|| self.entries.iter().find(is_last))
            }
        });
        found.or_else(|| top().next()).or_else(|| self.entries.first())
    }
}

/// One piece of the text.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// The end of a command.
    End,
    Open,
    Close,
}

/// Cuts the text into words. Single quotes keep everything, double quotes and backslashes as in a shell.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let mut flush = |word: &mut Option<String>, token: Option<Token>| {
            tokens.extend(word.take().map(Token::Word));
            tokens.extend(token);
        };
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                word.extend(chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    let escaped = c == '\\' && matches!(chars.peek(), Some('"' | '\\' | '$'));
                    word.push(if escaped { chars.next().unwrap_or(c) } else { c });
                }
            }
            '\\' => match chars.next() {
                // A line goes on.
                None | Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '#' if word.is_none() => {
                for c in chars.by_ref() {
                    if c == '\n' {
                        break;
                    }
                }
                flush(&mut word, Some(Token::End));
            }
            // ${name} is a part of a word, { alone opens a block.
            '{' if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                let word = word.get_or_insert_default();
                word.push('{');
                word.extend(chars.by_ref().take_while(|c| *c != '}' && *c != '\n'));
                word.push('}');
            }
            '{' => flush(&mut word, Some(Token::Open)),
            '}' => flush(&mut word, Some(Token::Close)),
            '\n' | ';' => flush(&mut word, Some(Token::End)),
            c if c.is_whitespace() => flush(&mut word, None),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens.push(Token::End);
    tokens
}

/// What a block in braces belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Entry,
    Submenu,
    Other,
}

/// Parses a file.
pub fn parse(text: &[u8]) -> Config {
    let text = String::from_utf8_lossy(text);
    let mut config = Config::default();
    let mut blocks: Vec<Block> = Vec::new();
    let mut command: Command = Vec::new();
    let mut count = 0_usize;
    for token in tokens(&text) {
        match token {
            Token::Word(word) => {
                // Words that only steer what is run.
                if !(command.is_empty()
                    && matches!(word.as_str(), "if" | "then" | "else" | "elif" | "fi" | "do" | "done"))
                {
                    command.push(word);
                }
                continue;
            }
            Token::Open => {
                let block = match command.first().map(String::as_str) {
                    Some("menuentry") => Block::Entry,
                    Some("submenu") => Block::Submenu,
                    _ => Block::Other,
                };
                if block == Block::Entry {
                    let id = command.iter().position(|word| matches!(word.as_str(), "--id" | "$menuentry_id_option"));
                    config.entries.push(Entry {
                        title: command.get(1).cloned().unwrap_or_default(),
                        id: id.and_then(|at| command.get(at.saturating_add(1)).cloned()),
                        nested: blocks.contains(&Block::Submenu),
                        commands: Vec::new(),
                    });
                    command.clear();
                } else if block == Block::Submenu {
                    command.clear();
                }
                blocks.push(block);
                if !command.is_empty() {
                    count = keep(&mut config, &blocks, &mut command, count);
                }
            }
            Token::Close => {
                count = keep(&mut config, &blocks, &mut command, count);
                blocks.pop();
            }
            Token::End => count = keep(&mut config, &blocks, &mut command, count),
        }
        if count > MAX_COMMANDS || blocks.len() > 100 {
            break;
        }
    }
    config
}

/// Puts a command where it belongs.
fn keep(config: &mut Config, blocks: &[Block], command: &mut Command, count: usize) -> usize {
    let command = std::mem::take(command);
    if command.is_empty() {
        return count;
    }
    match config.entries.last_mut().filter(|_| blocks.contains(&Block::Entry)) {
        Some(entry) => entry.commands.push(command),
        None => config.commands.push(command),
    }
    count.saturating_add(1)
}

/// Variables that are plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Sets one.
    pub fn set(&mut self, name: &str, value: &str) {
        if self.0.len() < MAX_COMMANDS {
            self.0.insert(name.into(), value.into());
        }
    }

    /// What one is.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Puts variables into a word; those that are not known become nothing.
    pub fn put_in(&self, word: &str) -> String {
        let mut out = String::new();
        let mut rest = word;
        while let Some(at) = rest.find('$') {
            let (before, behind) = rest.split_at(at);
            out.push_str(before);
            let behind = behind.get(1..).unwrap_or_default();
            let (name, after) = match behind.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, after)) => (name, after),
                None => {
                    let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
                    behind.split_at(end)
                }
            };
            out.push_str(self.get(name).unwrap_or_default());
            rest = after;
            if out.len() > MAX_WORD {
                return String::new();
            }
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# comment { with brace
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="0"
fi
function savedefault {
  save_env saved_entry
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-aa' {
	set root='hd0,msdos1'
	search --no-floppy --fs-uuid --set=root aa-bb
	linux	/boot/vmlinuz-6.1 root=UUID=aa-bb ro  quiet
	initrd	/boot/initrd.img-6.1
}
submenu "Advanced \"options\"" {
	menuentry "old" { linux /old; initrd /i
	}
}
menuentry 'unclosed' {
"#;

    #[test]
    fn entries_with_their_commands_are_read() {
        let config = parse(TEXT.as_bytes());
        let titles: Vec<_> = config.entries.iter().map(|entry| (entry.title.as_str(), entry.nested)).collect();
        assert_eq!(titles, [("Debian GNU/Linux", false), ("old", true), ("unclosed", false)]);
        assert_eq!(config.entries[0].commands[1].last().unwrap(), "aa-bb");
        assert_eq!(config.entries[0].commands[2], ["linux", "/boot/vmlinuz-6.1", "root=UUID=aa-bb", "ro", "quiet"]);
        assert_eq!(config.entries[1].commands, [vec!["linux", "/old"], vec!["initrd", "/i"]]);
        assert_eq!(config.default_entry().unwrap().title, "Debian GNU/Linux");
        let second = parse(format!("set default=1\n{TEXT}set default=\"${{x}}\"\n").replace("\"0\"", "$y").as_bytes());
        assert_eq!(second.default_entry().unwrap().title, "unclosed");
        assert_eq!(parse(b"menuentry").entries, []);
    }

    #[test]
    fn variables_are_put_in() {
        let mut variables = Variables::default();
        variables.set("root", "hd0,gpt2");
        assert_eq!(variables.put_in("($root)/boot/${x}grub$"), "(hd0,gpt2)/boot/grub");
        variables.set("a", "$a$a");
        assert_eq!(variables.put_in("$a"), "$a$a");
    }
}
