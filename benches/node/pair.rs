//! Two builds of the agent, by turns: whether a change has made receiving dearer.

use std::path::Path;

use super::agent;
use super::run::{self, Outcome};
use super::send::Load;

/// Rounds of each load, where none are given.
pub(crate) const ROUNDS: usize = 9;
const SECONDS: f64 = 3.0;

/// Runs each load on both builds, by turns, and prints what a datagram costs each. The ratio is the median of the rounds' ratios: a
/// processor that changes its clock rate in the meantime changes both sides of one round alike.
pub(crate) fn compare<'l>(before: &Path, loads: impl Iterator<Item = &'l Load>, rounds: usize) {
    println!(
        "load                       | ns CPU a datagram: before    this | this / before: median, of all rounds"
    );
    for load in loads {
        let rounds: Vec<[Outcome; 2]> = (0..rounds)
            .map(|round| {
                eprintln!("{}: round {}", load.name, round + 1);
                let run = |build: &Path| run::run_build(build, load, SECONDS);
                // Either one is the first every other time.
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
