//! The `hikae` command: arguments in, one exit code out. Each command has its file in `commands`.

// On Windows two modules of `boot` call functions of C.
#![cfg_attr(not(windows), forbid(unsafe_code))]
#![cfg_attr(
    doc,
    expect(
        rustdoc::broken_intra_doc_links,
        reason = "these comments are the help text, where brackets mean what can be left out"
    )
)]

// First, so that the others print by its macros.
#[macro_use]
mod print;

mod ahead;
mod any_disk;
mod boot;
mod boot_chain;
mod commands;
mod complete;
mod counted;
mod exit;
mod image_name;
mod inside;
mod last_lines;
mod listing;
mod progress;
mod served;
mod source;
mod system;
mod target;
mod text;
mod work;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::commands::Command;

/// Keeps whole disks as images and lets people use them.
#[derive(Debug, Parser)]
#[command(name = "hikae", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    if let Some(code) = boot::process::become_program() {
        return code;
    }
    // A shell that asks for completions sets COMPLETE; it is answered and the program ends.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers; everything else is wrong use.
            let code = if error.use_stderr() { exit::WRONG_USE } else { exit::DONE };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match arguments.command.run() {
        Ok(_) if print::was_lost() => {
            eprintln!("hikae: cannot write the answer to the standard output");
            ExitCode::from(exit::FAILED)
        }
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("hikae: {}", failure.message());
            ExitCode::from(failure.code())
        }
    }
}
