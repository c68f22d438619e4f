//! Hostile header blocks and CONNECT bodies: reading is total, and what a builder accepts can be read back.

use halyard_net::proto::Connect;
use halyard_net::proto::headers::{Builder, Headers, is_name};

#[test]
fn headers() {
    bolero::check!()
        .with_iterations(50_000)
        .with_type::<(bool, Vec<u8>)>()
        .for_each(|(versioned, bytes)| {
            let block = if *versioned {
                [b"NATS/1.0 ", bytes.as_slice()].concat()
            } else {
                bytes.clone()
            };
            let headers = Headers::new(&block);
            let _ = (headers.status(), headers.is_well_formed());
            let mut seen = 0;
            for (name, value) in headers {
                assert!(!name.is_empty());
                assert!(headers.get(name).is_some());
                seen += name.len() + 1 + value.len();
            }
            assert!(seen <= block.len(), "lines overlap");
        });
}

#[test]
fn built_headers() {
    bolero::check!()
        .with_iterations(50_000)
        .with_type::<(Vec<u8>, Vec<u8>)>()
        .for_each(|(name, value)| match Builder::new().header(name, value) {
            Ok(builder) => {
                let block = builder.finish();
                let headers = Headers::new(&block);
                assert!(headers.is_well_formed());
                assert_eq!(headers.iter().count(), 1);
                assert_eq!(headers.get(name), Some(value.trim_ascii()));
            }
            Err(_) => assert!(!is_name(name) || value.contains(&b'\n') || value.contains(&b'\r')),
        });
}

#[test]
fn connect_json() {
    bolero::check!()
        .with_iterations(20_000)
        .with_type::<(u8, Vec<u8>)>()
        .for_each(|(keep, bytes)| {
            let mut connect = Connect::default();
            let _ = connect.update(bytes);
            let good = Connect {
                name: String::from_utf8_lossy(bytes).into_owned(),
                ..connect
            };
            let mut json = good.to_json();
            let mut again = Connect::default();
            assert!(again.update(&json).is_ok());
            assert_eq!(again, good);
            // A good body cut short or damaged: refused or read, never worse.
            json.truncate(usize::from(*keep));
            let _ = Connect::default().update(&json);
        });
}
