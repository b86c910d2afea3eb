//! What only a simulated network shows: everything that may go wrong, again and again the same.

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;

use inflight::{Connection, Engine, Faults, Handle, Result, Shutdown, SimulatedDisk};
use support::{bytes, content};

const BYTES: usize = 100_000;
const CLIENTS: usize = 12;

fn anywhere() -> SocketAddr {
    "10.0.0.1:0".parse().expect("an address")
}

/// Sends back what arrives, until that ends. A careless one sends without looking how much was sent.
async fn serve(connection: Connection, careless: bool) -> Result<()> {
    loop {
        let buffer = connection.receive_pooled().await?;
        if buffer.is_empty() {
            return connection.shut_down(Shutdown::Send).await;
        }
        match careless {
            true => {
                let length = buffer.len();
                drop(connection.send(buffer, 0, length).await?);
            }
            false => drop(connection.send_full(buffer).await?),
        }
    }
}

/// Sends, receives what comes back, and says whether it is the same.
async fn ask(handle: Handle, server: inflight::Address, number: usize) -> Result<bool> {
    let connection = handle.connect(server).await?;
    let all = content(BYTES + number);
    let sending = handle.spawn({
        let (handle, connection, all) = (handle.clone(), connection.clone(), all.clone());
        async move {
            for piece in all.chunks(7000) {
                let mut buffer = handle.buffer(7000).await;
                buffer.extend_from_slice(piece);
                connection.send_full(buffer).await?;
            }
            connection.shut_down(Shutdown::Send).await
        }
    });
    let mut back = Vec::new();
    loop {
        let buffer = connection.receive_pooled().await?;
        if buffer.is_empty() {
            break;
        }
        back.extend_from_slice(&buffer);
    }
    sending.await?;
    Ok(back == all)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    right: usize,
    wrong: usize,
    failed: usize,
}

/// All clients at once; how it went, and a digest of everything that happened.
fn run(seed: u64, faults: Faults, careless: bool) -> (Told, u64) {
    let disk = SimulatedDisk::new(seed);
    disk.set_faults(faults);
    let engine = Engine::builder().simulated(&disk);
    let told = engine.block_on(async {
        let listener = engine.listen(anywhere()).await.expect("listens");
        let address = listener.address().await.expect("has one");
        engine
            .spawn({
                let handle = engine.handle().clone();
                async move {
                    while let Ok((connection, _)) = listener.accept().await {
                        handle.spawn(serve(connection, careless)).detach();
                    }
                }
            })
            .detach();
        let asking: Vec<_> = (0..CLIENTS)
            .map(|number| engine.spawn(ask(engine.handle().clone(), address.clone(), number)))
            .collect();
        let mut told = Told::default();
        for asked in asking {
            match asked.await {
                Ok(true) => told.right += 1,
                Ok(false) => told.wrong += 1,
                Err(error) => {
                    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    assert!(kinds.contains(&error.kind()), "{error}");
                    told.failed += 1;
                }
            }
        }
        told
    });
    drop(engine);
    assert_eq!(disk.opened(), 0, "seed {seed}");
    (told, disk.history())
}

#[test]
fn what_is_sent_arrives_whatever_the_order() {
    for seed in 0..10 {
        let faults = Faults { short_once_in: 3, interrupted_once_in: 5, ..Faults::default() };
        let (told, history) = run(seed, faults, false);
        assert_eq!(told, Told { right: CLIENTS, ..Told::default() }, "seed {seed}");
        assert_eq!(run(seed, faults, false), (told, history), "the same again, seed {seed}");
        assert_ne!(run(seed + 100, faults, false).1, history);
    }
}

#[test]
fn connections_break_and_both_ends_learn_of_it() {
    let mut broken = 0;
    for seed in 0..10 {
        let faults = Faults { reset_once_in: 500, ..Faults::default() };
        let (told, history) = run(seed, faults, false);
        assert_eq!((told.wrong, told.right + told.failed), (0, CLIENTS), "seed {seed}");
        broken += told.failed;
        assert_eq!(run(seed, faults, false), (told, history), "the same again, seed {seed}");
    }
    assert!(broken > 0);
}

#[test]
fn a_server_that_does_not_look_how_much_was_sent_is_found_out() {
    let faults = Faults { short_once_in: 3, ..Faults::default() };
    let wrong: usize = (0..3).map(|seed| run(seed, faults, true).0.wrong).sum();
    assert_eq!(wrong, 3 * CLIENTS);
}

#[test]
fn some_datagrams_are_lost_and_the_others_whole() {
    let disk = SimulatedDisk::new(1);
    disk.set_faults(Faults { lost_once_in: 3, ..Faults::default() });
    let engine = Engine::builder().simulated(&disk);
    engine.block_on(async {
        let one = engine.bind(anywhere()).await.expect("bound");
        let two = engine.bind(anywhere()).await.expect("bound");
        let to = two.address().await.expect("has one");
        for number in 0..100u8 {
            one.send_to(bytes(&engine, &[number; 50]), to.clone()).await.expect("sent");
        }
        // The mark that nothing more comes is not lost.
        disk.set_faults(Faults::default());
        one.send_to(bytes(&engine, b"end"), to).await.expect("sent");
        let mut arrived = Vec::new();
        loop {
            let (datagram, _) = two.receive_from(engine.buffer(100).await).await.expect("received");
            if &*datagram == b"end" {
                break;
            }
            assert_eq!(&*datagram, [datagram[0]; 50]);
            arrived.push(datagram[0]);
        }
        assert!((50..80).contains(&arrived.len()), "{}", arrived.len());
        assert!(arrived.is_sorted());
    });
}

#[test]
fn connections_do_not_outlive_a_loss_of_power() {
    let disk = SimulatedDisk::new(1);
    let engine = Engine::builder().simulated(&disk);
    engine.block_on(async {
        let listener = engine.listen(anywhere()).await.expect("listens");
        let client = engine.connect(listener.address().await.expect("has one")).await;
        let (client, (server, _)) = (client.expect("connects"), listener.accept().await.unwrap());
        let waiting = engine.spawn({
            let server = server.clone();
            async move { server.receive_pooled().await.map(|_| ()) }
        });
        disk.crash_at(disk.operations() + 1);
        client.send_full(bytes(&engine, b"lost")).await.expect_err("the power has failed");
        waiting.await.expect_err("the power has failed");
        disk.restart();
        server.receive_pooled().await.expect_err("it is not the same machine any more");
        engine.listen(anywhere()).await.expect("listens again");
    });
}

#[test]
#[should_panic(expected = "everybody waits, and nothing is under way that would end it")]
fn waiting_for_what_never_comes_is_found_out() {
    let engine = Engine::builder().simulated(&SimulatedDisk::new(1));
    engine.block_on(async {
        let listener = engine.listen(anywhere()).await.expect("listens");
        let client = engine.connect(listener.address().await.expect("has one")).await;
        let (_client, (server, _)) = (client.expect("connects"), listener.accept().await.unwrap());
        drop(server.receive_pooled().await);
    });
}
