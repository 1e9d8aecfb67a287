//! An application in a container: a StatsD client that reads only the two variables.

use std::net::UdpSocket;
use std::time::Duration;

use cadence::prelude::*;
use cadence::{StatsdClient, UdpMetricSink};

fn main() {
    let variable = |name| std::env::var(name).ok();
    let address = variable("STATSD_UDP_HOST").zip(variable("STATSD_UDP_PORT"));
    let client = address.map(|(host, port)| {
        let port: u16 = port.parse().expect("a port");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let sink = UdpMetricSink::from((host.as_str(), port), socket).expect("an address");
        StatsdClient::from_sink("app", sink)
    });
    loop {
        if let Some(client) = &client {
            // The agent may be restarting.
            let _either_way = client.count("ticks", 1);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
