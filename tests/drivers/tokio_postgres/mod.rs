//! tokio-postgres: pipelined and prepared statements, blocks with savepoints, portals, COPY, cancel, notifications.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream};
use tokio_postgres::{AsyncMessage, Client, Error, NoTls};

async fn connect(port: u16, db: &str) -> Client {
    let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname={db} connect_timeout=10");
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Everything that the driver does, with a deadline.
pub(crate) fn run(port: u16, db: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let all = async {
        let mut client = connect(port, db).await;
        statements(&client).await.expect("statements");
        transactions(&mut client).await.expect("transactions");
        copies(&client).await.expect("copies");
        cancel(&client).await;
        notifications(port, db).await;
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), all).await }).expect("in time");
}

/// Polls all of them until the last has ended, so that the driver sends them as one pipeline.
async fn together<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (one, slot) in running.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let Poll::Ready(output) = one.as_mut().poll(context)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().map(|slot| slot.expect("all have ended")).collect()
}

async fn statements(client: &Client) -> Result<(), Error> {
    client
        .batch_execute("CREATE TABLE t (n int PRIMARY KEY, v text); CREATE TYPE mood AS ENUM ('sad', 'glad')")
        .await?;
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2)").await?;
    for n in 0..100_i32 {
        client.execute(&insert, &[&n, &format!("v{n}")]).await?;
    }
    let read = client.prepare("SELECT v FROM t WHERE n = $1").await?;
    let pipelined = (0..100_i32).map(|n| {
        let read = &read;
        async move { client.query_one(read, &[&n]).await }
    });
    for (n, row) in together(pipelined.collect()).await.into_iter().enumerate() {
        assert_eq!(row?.get::<_, String>(0), format!("v{n}"));
    }
    // A type that the driver looks up in the catalogs by statements of its own.
    let mood = client.prepare("SELECT 'glad'::mood").await?;
    assert_eq!(mood.columns()[0].type_().name(), "mood");
    let error = client.query("SELECT 1/0", &[]).await.expect_err("a division by zero");
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("22012"));
    let rows = client.simple_query("SELECT 1; SELECT 2").await?;
    let rows = rows.iter().filter(|one| matches!(one, tokio_postgres::SimpleQueryMessage::Row(_)));
    assert_eq!(rows.count(), 2);
    Ok(())
}

async fn transactions(client: &mut Client) -> Result<(), Error> {
    let mut outer = client.transaction().await?;
    outer.execute("INSERT INTO t VALUES (1000, 'kept')", &[]).await?;
    let inner = outer.savepoint("nested").await?;
    inner.execute("INSERT INTO t VALUES (1000, 'twice')", &[]).await.expect_err("a duplicate key");
    inner.rollback().await?;
    let all = outer.prepare("SELECT n FROM t ORDER BY n").await?;
    let portal = outer.bind(&all, &[]).await?;
    let mut seen = 0;
    loop {
        let rows = outer.query_portal(&portal, 13).await?;
        seen += rows.len();
        if rows.len() < 13 {
            break;
        }
    }
    assert_eq!(seen, 101);
    outer.commit().await?;
    let lost = client.transaction().await?;
    lost.execute("DELETE FROM t", &[]).await?;
    // Dropped without a commit: the driver sends ROLLBACK.
    drop(lost);
    let row = client.query_one("SELECT count(*) FROM t", &[]).await?;
    assert_eq!(row.get::<_, i64>(0), 101);
    Ok(())
}

async fn copies(client: &Client) -> Result<(), Error> {
    let lines: String = (5000..8000).map(|n| format!("{n}\tcopied\n")).collect();
    let mut sink = pin!(client.copy_in::<_, Bytes>("COPY t FROM STDIN").await?);
    for chunk in lines.as_bytes().chunks(1000) {
        sink.send(Bytes::copy_from_slice(chunk)).await?;
    }
    assert_eq!(sink.finish().await?, 3000);
    let mut text = Vec::new();
    let mut out = pin!(client.copy_out("COPY (SELECT n FROM t WHERE n >= 5000) TO STDOUT").await?);
    while let Some(chunk) = poll_fn(|context| out.as_mut().poll_next(context)).await {
        text.extend_from_slice(&chunk?);
    }
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 3000);
    Ok(())
}

async fn cancel(client: &Client) {
    let token = client.cancel_token();
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.expect("a cancel request");
    };
    let (slept, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), later);
    let error = slept.expect_err("it was cancelled");
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("57014"));
    client.batch_execute("SELECT 1").await.expect("the session stays");
}

async fn notifications(port: u16, db: &str) {
    let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname={db} connect_timeout=10");
    let (listener, mut connection) = tokio_postgres::connect(&dsn, NoTls).await.expect("a connection");
    let (heard, mut news) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let Ok(AsyncMessage::Notification(note)) = message {
                heard.send(note.payload().to_owned()).await.expect("somebody listens");
            }
        }
    });
    listener.batch_execute("LISTEN news").await.expect("listens");
    let speaker = connect(port, db).await;
    speaker.batch_execute("NOTIFY news, 'hello'").await.expect("notifies");
    assert_eq!(news.recv().await.as_deref(), Some("hello"));
}
