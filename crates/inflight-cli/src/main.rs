//! The `inflight` command: arguments, progress, reports and exit status. What it does is in
//! `inflight-patch`, how it moves data in `inflight`.

mod arguments;
mod bench;
mod commands;
mod known;
mod progress;
mod report;
mod size;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Completions { shell } => print_completions(*shell),
        Command::Man => print_man_page(),
        Command::Bench(bench) => bench::run(bench, &arguments.common),
        command => commands::run(command, &arguments.common),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            tell(&error, &arguments);
            ExitCode::from(1)
        }
    }
}

/// One clear sentence; the causes with `-v`.
fn tell(error: &anyhow::Error, arguments: &Arguments) {
    eprintln!("inflight: {}", report::printable(&error.to_string()));
    if arguments.common.verbose {
        for cause in error.chain().skip(1) {
            eprintln!("  caused by: {}", report::printable(&cause.to_string()));
        }
    }
    if arguments.common.json {
        report::print_json_error(commands::name(&arguments.command), &error.to_string());
    }
}

fn print_completions(shell: clap_complete::Shell) -> Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "inflight", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(true)
}

/// The page of the command itself, then one section for each subcommand.
fn print_man_page() -> Result<bool> {
    let mut page = Vec::new();
    let mut command = Arguments::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let man = clap_mangen::Man::new(subcommand.clone());
        writeln!(page, ".SH \"INFLIGHT {}\"", subcommand.get_name().to_uppercase())?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        man.render_extra_section(&mut page)?;
    }
    std::io::stdout().write_all(&page)?;
    Ok(true)
}
