//! cbagent.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|command| command == "launch") {
        return cbagent::adapters::process::launch(arguments);
    }
    ExitCode::SUCCESS
}
