//! The arguments of `tallyport publish`.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::format::{ListFormat, OutputArgs, RawArgs};
use super::target::{AdminArgs, ClientArgs};
use super::times;
use crate::cli::completion::publisher_names;

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishListArgs {
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<ListFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublisherArgs {
    /// The publisher's name in the configuration
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = publisher_names())]
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublisherCallArgs {
    /// The publisher's name in the configuration
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = publisher_names())]
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishReplayArgs {
    #[command(flatten)]
    pub(in crate::cli) call: PublisherCallArgs,
    /// Instead of dead letters, kept windows that ended within this time, such as 5m, or since this moment in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = times::check_since)]
    pub(in crate::cli) since: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishVerifyArgs {
    #[command(flatten)]
    pub(in crate::cli) call: PublisherCallArgs,
    /// Rounds that ended within this time, such as 5m, or since this moment in RFC 3339
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = times::check_since)]
    pub(in crate::cli) since: String,
}
