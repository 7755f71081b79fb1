//! `tertulia host`: the embedded server by itself.

use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Common, HostArgs, Rule};
use super::{Failure, common};
use crate::call::process::ProcessMeter;
use crate::call::report::ProcessReport;
use crate::host::{self, Handle, HostConfig, HostError, HostStats, Tls};

pub(super) fn run(global: &Common, args: &HostArgs) -> Result<(), Failure> {
    let meter = ProcessMeter::new(std::time::Instant::now());
    let (stats, failure) = match begin_and_serve(global, args, &meter) {
        Ok(stats) => (Some(stats), None),
        Err(failure) => (None, Some(failure)),
    };
    let saved = common::save_report(args.stats_json.as_deref(), &report(stats.as_ref(), failure.as_ref(), &meter));
    failure.map_or(saved, Err)
}

/// From the options to the end.
fn begin_and_serve(global: &Common, args: &HostArgs, meter: &ProcessMeter) -> Result<HostStats, Failure> {
    if args.rule != Rule::Conference {
        return Err(Failure::Failed("this version knows the rule `conference` only".to_owned()));
    }
    if args.advertise.is_some() {
        return Err(Failure::Failed(
            "being found on the network comes with a later version: send the invitation instead".to_owned(),
        ));
    }
    let secret = args.secret_env.as_deref().map(common::secret_from).transpose()?;
    let config = HostConfig {
        listen: args.listen,
        udp_port: args.udp_port,
        secret,
        tls: if args.no_tls { Tls::None } else { Tls::SelfSigned },
        data_dir: match &args.data_dir {
            Some(dir) => dir.clone(),
            None => {
                crate::settings::Store::open(global.config.as_deref()).map_err(Failure::failed)?.folder().join("host")
            }
        },
        keep_rooms: true,
        impairments: common::impairments(global)?,
        ..HostConfig::default()
    };
    let runtime = common::runtime()?;
    let (handle, ready) = open(config, args.session.as_deref()).map_err(|e| Failure::host(&e))?;
    let served = common::say(&ready.to_string()).map(|()| runtime.block_on(serve(args.seconds, meter)));
    let stats = handle.stats();
    handle.shutdown();
    served.map(|()| stats)
}

/// Starts the host, and makes the line that says so.
fn open(config: HostConfig, session: Option<&str>) -> Result<(Handle, Value), HostError> {
    let handle = host::start(config)?;
    let mut ready = json!({
        "ready": true,
        "url": handle.url(),
        "udp": handle.udp_addr().to_string(),
        "fingerprint": handle.fingerprint(),
    });
    if let Some(session) = session {
        let invitation = handle.create_room(session)?;
        if let Some(members) = ready.as_object_mut() {
            members.insert("session".to_owned(), json!(session));
            members.insert("invitation".to_owned(), json!(invitation.to_string()));
        }
    }
    Ok((handle, ready))
}

/// Until the time is up or somebody ends it.
async fn serve(seconds: Option<f64>, meter: &ProcessMeter) {
    let limit = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let ended = async {
        tokio::select! {
            () = limit => {}
            () = common::asked_to_end() => {}
        }
    };
    tokio::pin!(ended);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = &mut ended => return,
            _ = tick.tick() => meter.sample(),
        }
    }
}

fn report(stats: Option<&HostStats>, failure: Option<&Failure>, meter: &ProcessMeter) -> Value {
    let process = meter.report();
    json!({
        "schema": crate::call::report::SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "command": "host",
        "ok": failure.is_none(),
        "error": failure.map(ToString::to_string),
        "host": stats.map(|stats| figures(stats, &process)),
        "process": process,
    })
}

/// What stands under `host` in the reports of `host` and `demo`. In a demo CPU and memory are those of the whole process.
pub(super) fn figures(stats: &HostStats, process: &ProcessReport) -> Value {
    let mut figures = json!(stats);
    if let Some(members) = figures.as_object_mut() {
        // At the end everybody has left: what is of interest is how many there were.
        for (name, most) in
            [("sessions", "most_sessions"), ("participants", "most_participants"), ("streams", "most_streams")]
        {
            if let Some(most) = members.remove(most) {
                members.insert(name.to_owned(), most);
            }
        }
        members.remove("sockets");
        members.insert("cpu_s".to_owned(), json!(process.cpu_s));
        members.insert("rss_peak_bytes".to_owned(), json!(process.rss_peak_bytes));
    }
    figures
}
