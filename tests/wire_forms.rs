//! Every recorded frame, read into the message types and written again, is the same text: same members, same order, same forms.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use tertulia::protocol::message::{
    ConnectResult, Empty, JoinResult, Notification, PrepareResult, PublishResult, ReceiveResult, Request,
};
use tertulia::protocol::rpc::{self, ClientFrame, ServerFrame};

/// Recordings of scripts that write requests in forms of their own.
const ODD_FORMS: &[&str] = &["join-errors", "join-lenient", "rpc-errors"];

fn typed<T: serde::de::DeserializeOwned + serde::Serialize>(id: i64, result: &Value) -> String {
    let session = result["sessionId"].as_str().unwrap();
    rpc::success(id, &serde_json::from_value::<T>(result.clone()).unwrap(), session)
}

fn success(method: &str, id: i64, result: &Value) -> Option<String> {
    Some(match method {
        "joinRoom" => typed::<JoinResult>(id, result),
        "publishVideo" => typed::<PublishResult>(id, result),
        "reconnectStream" if result.get("id").is_some() => typed::<PublishResult>(id, result),
        "reconnectStream" | "receiveVideoFrom" => typed::<ReceiveResult>(id, result),
        "prepareReceiveVideoFrom" => typed::<PrepareResult>(id, result),
        "connect" => typed::<ConnectResult>(id, result),
        "ping" | "closeSession" => rpc::success_plain(id, result),
        _ if result.as_object()?.len() == 1 => rpc::success(id, &Empty {}, result["sessionId"].as_str()?),
        _ => return None,
    })
}

#[test]
fn recorded_frames_survive_reading_and_writing() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/calls");
    let (mut requests, mut notifications, mut answers) = (0, 0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut asked: HashMap<(String, i64), String> = HashMap::new();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let Some(frame) = recorded.get("frame").filter(|f| f.is_object()) else { continue };
            let conn = recorded["conn"].as_str().unwrap().to_owned();
            if recorded["dir"] == "c2s" {
                let Ok(ClientFrame { id: Some(id), method, params }) = ClientFrame::parse(&frame.to_string()) else {
                    continue;
                };
                asked.insert((conn, id), method.clone());
                let Ok(request) = Request::parse(&method, params.as_ref()) else { continue };
                // A few scripts leave optional parameters out, which a client of ours always writes.
                let short = method == "joinRoom" && frame["params"].as_object().unwrap().len() < 8;
                if ODD_FORMS.contains(&file.as_str()) || short {
                    continue;
                }
                let ours = rpc::request(id, &request);
                assert!(line.contains(&format!("\"frame\":{ours}}}")), "{file}: {ours}\n{line}");
                requests += 1;
            } else {
                let ours = match ServerFrame::parse(&frame.to_string()).unwrap() {
                    ServerFrame::Notification { method, params } => {
                        notifications += 1;
                        rpc::notification(&Notification::parse(&method, params).unwrap())
                    }
                    ServerFrame::Success { id, result } => {
                        let Some(method) = asked.get(&(conn, id)) else { continue };
                        let Some(text) = success(method, id, &result) else { continue };
                        answers += 1;
                        text
                    }
                    ServerFrame::Error { id: Some(id), error } => {
                        // The original sometimes adds members to errors, which need not be imitated.
                        if frame["error"].as_object().unwrap().len() > 2 {
                            continue;
                        }
                        answers += 1;
                        rpc::error(Some(id), &error)
                    }
                    ServerFrame::Error { id: None, .. } => continue,
                };
                // In the list of a `joinRoom` result the original writes `videoActive` before `audioActive`, elsewhere behind it; filters are
                // passed on as they are, in no particular order.
                let loose = frame["result"].get("value").is_some_and(Value::is_array)
                    || frame["params"]["property"] == "filter";
                let same = line.contains(&format!("\"frame\":{ours}}}"))
                    || loose && serde_json::from_str::<Value>(&ours).unwrap() == *frame;
                assert!(same, "{file}: {ours}\n{line}");
            }
        }
    }
    println!("{requests} requests, {notifications} notifications, {answers} answers");
    assert!(requests > 2000 && notifications > 1600 && answers > 2000, "{requests} {notifications} {answers}");
}
