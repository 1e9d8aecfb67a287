//! `tallyport parse`.

use std::io::BufRead as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::args::ParseArgs;
use super::failure::{Failure, code};
use super::output::Console;
use crate::render::parsed::describe_datagram;
use crate::statsd::style;

pub(super) fn parse_datagrams(args: &ParseArgs, out: &mut Console) -> Result<(), Failure> {
    let styles = style::read(args.tag_styles.split(',')).map_err(|wrong| {
        Failure::usage_error(format!(
            "{wrong:?} is not a tag style; there are influx, librato, signalfx and all"
        ))
    })?;
    let print = |out: &mut Console, datagram: &[u8]| out.write_ndjson([describe_datagram(datagram, styles)]);
    if !args.datagrams.is_empty() {
        for text in &args.datagrams {
            print(out, &decode_datagram(text.as_bytes(), args.base64)?)?;
        }
        return Ok(());
    }
    for line in std::io::stdin().lock().split(b'\n') {
        print(out, &decode_datagram(&line?, args.base64)?)?;
    }
    Ok(())
}

fn decode_datagram(text: &[u8], base64: bool) -> Result<Vec<u8>, Failure> {
    if !base64 {
        return Ok(text.to_vec());
    }
    let text = text.trim_ascii();
    BASE64_STANDARD.decode(text).map_err(|error| {
        Failure::new(code::ERROR, format!("{:?} is not base64: {error}", String::from_utf8_lossy(text)))
    })
}
