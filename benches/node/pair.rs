//! Compares two builds of the agent, in turn, to show whether a change makes receiving more expensive.

use std::path::Path;

use super::agent;
use super::run::{self, Outcome};
use super::send::Load;

/// The default number of rounds of each load.
pub(crate) const ROUNDS: usize = 9;
const SECONDS: f64 = 3.0;

/// Runs each load on both builds in turn, and prints the cost of a datagram for each. The ratio is the median of the
/// rounds' ratios, because a change of the processor's clock rate affects both sides of a round alike.
pub(crate) fn compare<'l>(before: &Path, loads: impl Iterator<Item = &'l Load>, rounds: usize) {
    println!(
        "load                       | ns CPU a datagram: before    this | this / before: median, of all rounds"
    );
    for load in loads {
        let rounds: Vec<[Outcome; 2]> = (0..rounds)
            .map(|round| {
                eprintln!("{}: round {}", load.name, round + 1);
                let run = |build: &Path| run::run_build(build, load, SECONDS);
                // Each goes first in every other round.
                match round % 2 {
                    0 => [run(before), run(&agent::this_build())],
                    _ => {
                        let this = run(&agent::this_build());
                        [run(before), this]
                    }
                }
            })
            .collect();
        let sides = [0, 1].map(|side| {
            Outcome::median(&rounds.iter().map(|outcomes| outcomes[side]).collect::<Vec<_>>()).nanos
        });
        let mut ratios: Vec<f64> = rounds.iter().map(|[before, this]| this.nanos / before.nanos).collect();
        ratios.sort_by(f64::total_cmp);
        let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let [before, this] = sides;
        let median = ratios[ratios.len() / 2];
        println!("{:26} | {before:25.0} {this:7.0} | {median:21.3}, {}", load.name, all.join(" "));
    }
}
