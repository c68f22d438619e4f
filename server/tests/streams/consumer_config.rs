//! What of a consumer's configuration others decide: the limits of its stream, and the request that pauses it.

use serde_json::{Value, json};

use crate::raw::Raw;
use crate::{answer, api, client, on_a_disk, start};

/// The code of a refusal, or the configuration that came of it.
async fn make(raw: &mut Raw, name: &str, config: Value) -> Result<Value, u64> {
    let mut config = config;
    config["name"] = name.into();
    config["ack_policy"] = "explicit".into();
    let body = json!({"stream_name": "S", "config": config});
    let made = api(raw, &format!("CONSUMER.CREATE.S.{name}"), &body).await;
    match made["error"]["err_code"].as_u64() {
        Some(code) => Err(code),
        None => Ok(made["config"].clone()),
    }
}

/// The same of the stream's limits for consumers.
async fn limit(raw: &mut Raw, verb: &str, limits: Value) -> Result<Value, String> {
    let mut config = json!({"name": "S", "subjects": ["s"]});
    if !limits.is_null() {
        config["consumer_limits"] = limits;
    }
    let made = api(raw, &format!("STREAM.{verb}.S"), &config).await;
    match made["error"]["description"].as_str() {
        Some(why) => Err(format!("{} {why}", made["error"]["err_code"])),
        None => Ok(made["config"]["consumer_limits"].clone()),
    }
}

fn shown(config: Result<Value, u64>) -> (i64, i64) {
    let config = config.unwrap();
    let number = |name: &str| config[name].as_i64().unwrap_or(0);
    (number("max_ack_pending"), number("inactive_threshold"))
}

const SECOND: i64 = 1_000_000_000;

#[test]
fn consumers_keep_to_the_limits_of_their_stream() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        let limits = json!({"max_ack_pending": 50, "inactive_threshold": 60 * SECOND});
        assert_eq!(limit(&mut raw, "CREATE", limits.clone()).await, Ok(limits));
        let durable = |more: Value| {
            let mut config = json!({"durable_name": "A"});
            let more = more.as_object().unwrap().clone();
            config.as_object_mut().unwrap().extend(more);
            config
        };
        // What is not given is the limit, what is given stays below it.
        let made = make(&mut raw, "A", durable(json!({}))).await;
        assert_eq!(shown(made), (50, 60 * SECOND));
        let own = json!({"max_ack_pending": 10, "inactive_threshold": 9 * SECOND});
        assert_eq!(shown(make(&mut raw, "B", own).await), (10, 9 * SECOND));
        let above = json!({"max_ack_pending": 51});
        assert_eq!(make(&mut raw, "C", above.clone()).await, Err(10121));
        let longer = json!({"inactive_threshold": 61 * SECOND});
        assert_eq!(make(&mut raw, "C", longer).await, Err(10153));
        // Updates as well.
        assert_eq!(
            make(&mut raw, "A", durable(above.clone())).await,
            Err(10121)
        );
        let same = make(&mut raw, "A", durable(json!({"description": "d"}))).await;
        assert_eq!(shown(same), (50, 60 * SECOND));
        // A limit rises for those who come and update from then on, and does not fall below what there is.
        let raised = json!({"max_ack_pending": 100, "inactive_threshold": 120 * SECOND});
        assert!(limit(&mut raw, "UPDATE", raised).await.is_ok());
        let updated = make(&mut raw, "A", durable(above)).await;
        assert_eq!(shown(updated), (51, 120 * SECOND));
        for lower in [
            json!({"max_ack_pending": 50}),
            json!({"inactive_threshold": 60 * SECOND}),
        ] {
            let refused = limit(&mut raw, "UPDATE", lower).await;
            let why = "10069 change to limits violates consumers: A";
            assert_eq!(refused, Err(why.to_owned()));
        }
        assert_eq!(limit(&mut raw, "UPDATE", Value::Null).await, Ok(json!({})));
        assert_eq!(
            shown(make(&mut raw, "D", json!({"durable_name": "D"})).await),
            (1000, 0)
        );
        server.shutdown().await;
    });
}

async fn is_paused(raw: &mut Raw) -> bool {
    let info = api(raw, "CONSUMER.INFO.S.A", &Value::Null).await;
    info["paused"] == true
}

#[test]
fn only_its_own_request_changes_a_pause() {
    on_a_disk(|disk| async move {
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        assert!(limit(&mut raw, "CREATE", Value::Null).await.is_ok());
        let (future, past) = ("2200-01-01T00:00:00Z", "2020-01-01T00:00:00Z");
        let config = |more: Value| {
            let mut config = json!({"durable_name": "A"});
            let more = more.as_object().unwrap().clone();
            config.as_object_mut().unwrap().extend(more);
            config
        };
        let pause = |until: Value| json!({"pause_until": until});
        assert!(
            make(&mut raw, "A", config(pause(past.into())))
                .await
                .is_ok()
        );
        assert!(!is_paused(&mut raw).await);
        assert!(
            make(&mut raw, "A", config(pause(future.into())))
                .await
                .is_ok()
        );
        assert!(!is_paused(&mut raw).await, "an update pauses nothing");
        let paused = api(&mut raw, "CONSUMER.PAUSE.S.A", &pause(future.into())).await;
        assert_eq!(
            (&paused["paused"], &paused["pause_until"]),
            (&json!(true), &json!(future))
        );
        for (number, other) in [json!({}), pause(past.into()), pause(Value::Null)]
            .into_iter()
            .enumerate()
        {
            let mut other = config(other);
            other["description"] = number.to_string().into();
            let made = make(&mut raw, "A", other).await.unwrap();
            assert_eq!(made["pause_until"], future, "{made}");
            assert!(is_paused(&mut raw).await, "an update resumes nothing");
        }
        // Nothing is delivered meanwhile, and everything afterwards.
        let mut other = Raw::connected(&server, "").await;
        other
            .send("SUB to 1\r\nPUB s 1\r\nx\r\nPUB $JS.API.CONSUMER.MSG.NEXT.S.A to 0\r\n\r\n")
            .await;
        other.flush().await;
        let resumed = api(&mut raw, "CONSUMER.PAUSE.S.A", &Value::Null).await;
        assert_eq!(resumed["paused"], false, "{resumed}");
        assert_eq!(answer(&mut other).await, "x");
        assert!(!is_paused(&mut raw).await);
        // From the start, and over a restart.
        api(&mut raw, "CONSUMER.DELETE.S.A", &Value::Null).await;
        assert!(
            make(&mut raw, "A", config(pause(future.into())))
                .await
                .is_ok()
        );
        server.shutdown().await;
        drop((raw, other, server));
        let server = start(&disk).await;
        let mut raw = client(&server).await;
        assert!(is_paused(&mut raw).await);
        let zero = pause("0001-01-01T00:00:00Z".into());
        let resumed = api(&mut raw, "CONSUMER.PAUSE.S.A", &zero).await;
        assert_eq!(
            (&resumed["paused"], is_paused(&mut raw).await),
            (&json!(false), false)
        );
        server.shutdown().await;
    });
}
