//! `tertulia host`: the embedded server by itself.

use std::time::Duration;

use serde_json::json;

use super::args::{Common, HostArgs, Rule};
use super::{Failure, common};
use crate::call::process::ProcessMeter;
use crate::host::{self, HostConfig, Tls};

pub(super) fn run(global: &Common, args: &HostArgs) -> Result<(), Failure> {
    if args.rule != Rule::Conference {
        return Err(Failure::Failed("this version knows the rule `conference` only".to_owned()));
    }
    if args.advertise.is_some() {
        return Err(Failure::Failed(
            "being found on the network comes with a later version: send the invitation instead".to_owned(),
        ));
    }
    let secret = args.secret_env.as_deref().map(common::secret_from).transpose()?;
    let meter = ProcessMeter::new(std::time::Instant::now());
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
    let handle = host::start(config).map_err(Failure::failed)?;
    let mut ready = json!({"ready": true, "url": handle.url(), "udp": handle.udp_addr().to_string(), "fingerprint": handle.fingerprint()});
    if let Some(session) = &args.session {
        let invitation = handle.create_room(session).map_err(Failure::failed)?;
        if let Some(members) = ready.as_object_mut() {
            members.insert("session".to_owned(), json!(session));
            members.insert("invitation".to_owned(), json!(invitation.to_string()));
        }
    }
    println!("{ready}");
    runtime.block_on(async {
        let limit = async {
            match args.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds.max(0.0))).await,
                None => std::future::pending().await,
            }
        };
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let ended = async {
            tokio::select! {
                () = limit => {}
                () = common::asked_to_end() => {}
            }
        };
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => break,
                _ = tick.tick() => meter.sample(),
            }
        }
    });
    let stats = handle.stats();
    handle.shutdown();
    let report = json!({
        "schema": crate::call::report::SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "command": "host",
        "ok": true,
        "error": null,
        "host": stats,
        "process": meter.report(),
    });
    common::save_report(args.stats_json.as_deref(), &report)
}
