//! Puts a [`Worker`] on a thread: sockets, wake-ups and timers around the plain core.
//!
//! Always true: no borrow of the worker is held over an await; a turn is what the ready tasks do
//! before the seal task runs, which the turn's first write wakes. What a turn has for another
//! thread leaves in few pieces, when the ready tasks are through at the latest, in the order in
//! which it was made.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio::task::coop::unconstrained;

use crate::limits::READ_BYTES_MAX;
use crate::log::{Log, Subscription};
use crate::session::{Client, Shared, Wake};
use crate::shard::mailbox::{ConnId, Message, ShardId};
use crate::worker::table::Table;
use crate::worker::{Parts, Worker};

/// A socket that was accepted elsewhere.
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// Unix.
    Unix(std::os::unix::net::UnixStream),
}

/// What a shard thread receives.
pub enum Envelope {
    /// A message to its worker.
    Message(Message),
    /// Messages of one turn of another shard thread, in their order.
    Turn(Vec<Message>),
    /// A connection to serve.
    Accept(Accepted, Arc<Client>),
    /// Tell when nothing is under way any more; `true`: as far as it would have to end before the
    /// process does.
    Quiet(std::sync::mpsc::Sender<()>, bool),
    /// End the thread.
    Stop,
}

/// Where a shard thread is reached.
pub type Mailbox = mpsc::UnboundedSender<Envelope>;

/// Expired keys are deleted in pieces of so many.
const EXPIRE_BUDGET: usize = 200;
/// A thread looks at its timers at least so often.
const TICK_MS: u64 = 25;
/// So many calls for another thread do not wait for the end of a turn.
const POST_CALLS: usize = 32;
/// Nor does anything for another thread wait until more connections had their turn.
const POST_CONNS: usize = 64;
/// Reads of one connection before others have their turn.
const READS_PER_POLL: usize = 4;

/// A connection's socket. In one piece: halves would be shared in memory of their own.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn open(accepted: Accepted) -> io::Result<Socket> {
        match accepted {
            Accepted::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                TcpStream::from_std(stream).map(Socket::Tcp)
            }
            Accepted::Unix(stream) => {
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Socket::Unix)
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let polled = match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    /// Whether there is more to read right now; if not, whoever polls is woken when there is.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Writes what the socket takes right now.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_write(bytes),
            Socket::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Whether the socket takes more; if not, whoever polls is woken when it does.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            Socket::Unix(stream) => stream.poll_write_ready(cx),
        }
    }
}

/// A connection that the thread serves: an idle one takes little memory.
struct Served {
    index: u32,
    client: Arc<Client>,
    /// It is called when its socket has something to read.
    listens: Cell<bool>,
    socket: RefCell<Socket>,
}

/// The connections that the thread has to look at. Their clients' records say so when they are
/// woken: the event loop does it when a socket is ready, other threads when they set a flag.
#[derive(Default)]
struct Called {
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    ids: Vec<ConnId>,
    /// Whoever waits for some.
    waiting: Option<Waker>,
}

struct Local {
    id: ShardId,
    worker: RefCell<Worker>,
    shared: Arc<Shared>,
    peers: Vec<Mailbox>,
    served: RefCell<Table<Option<Rc<Served>>>>,
    called: Arc<Called>,
    /// Calls a connection.
    wake_client: Wake,
    scratch: RefCell<Vec<u8>>,
    seal: Notify,
    /// For each other thread, what leaves at the end of this turn at the latest.
    posts: RefCell<Vec<Post>>,
    post: Notify,
    log: Subscription,
    wanted_lsn: Cell<u64>,
    quiet: RefCell<Vec<(std::sync::mpsc::Sender<()>, bool)>>,
}

/// Runs a shard thread until it is told to stop; `runtime` is a current-thread one of its own.
pub fn run(
    runtime: &Runtime,
    parts: Parts,
    inbox: mpsc::UnboundedReceiver<Envelope>,
    peers: Vec<Mailbox>,
) {
    let durable = Arc::new(Notify::new());
    let log: Log = parts.log.clone();
    let called = Arc::<Called>::default();
    let local = Rc::new(Local {
        id: parts.id,
        shared: parts.shared.clone(),
        wake_client: {
            let called = called.clone();
            Arc::new(move |index, client| called.add(ConnId { index, client }))
        },
        called,
        posts: RefCell::new(peers.iter().map(|_| Post::default()).collect()),
        post: Notify::new(),
        peers,
        served: RefCell::new(Table::new()),
        scratch: RefCell::new(vec![0; READ_BYTES_MAX]),
        seal: Notify::new(),
        log: log.subscribe({
            let durable = durable.clone();
            Arc::new(move || durable.notify_one())
        }),
        wanted_lsn: Cell::new(0),
        quiet: RefCell::new(Vec::new()),
        worker: RefCell::new(Worker::new(parts)),
    });
    let tasks = LocalSet::new();
    // Its own pieces are small enough: see there.
    tasks.spawn_local(unconstrained(serve_called(local.clone())));
    tasks.spawn_local(seal_turns(local.clone()));
    tasks.spawn_local(post_turns(local.clone()));
    tasks.spawn_local(follow_log(local.clone(), durable));
    tasks.spawn_local(keep_time(local.clone()));
    tasks.block_on(runtime, receive(local.clone(), inbox));
    local.served.borrow_mut().clear();
}

impl Called {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection has to be looked at.
    fn add(&self, id: ConnId) {
        let mut calls = self.lock();
        calls.ids.push(id);
        let waiting = calls.waiting.take();
        drop(calls);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Takes all that were called, as soon as there are some; `ids` is empty.
    fn poll_take(&self, cx: &mut Context<'_>, ids: &mut Vec<ConnId>) -> Poll<()> {
        let mut calls = self.lock();
        if calls.ids.is_empty() {
            calls.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(ids, &mut calls.ids);
        Poll::Ready(())
    }
}

/// Looks at the connections that are called: once at each, then others have their turn, and the
/// event loop says whose sockets are ready meanwhile.
async fn serve_called(local: Rc<Local>) {
    let mut ids = Vec::new();
    loop {
        poll_fn(|cx| local.called.poll_take(cx, &mut ids)).await;
        for (served, id) in ids.drain(..).enumerate() {
            local.serve(id);
            if served % POST_CONNS == POST_CONNS - 1 {
                local.send_posts();
            }
        }
        if !local.called.lock().ids.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

/// Handles what arrives from other threads; ends with the thread.
async fn receive(local: Rc<Local>, mut inbox: mpsc::UnboundedReceiver<Envelope>) {
    while let Some(envelope) = inbox.recv().await {
        local.worker.borrow_mut().begin_turn();
        match envelope {
            Envelope::Message(message) => local.worker.borrow_mut().message(message),
            Envelope::Turn(messages) => {
                for message in messages {
                    local.worker.borrow_mut().message(message);
                }
                local.send_released();
            }
            Envelope::Accept(accepted, client) => local.accept(accepted, client),
            Envelope::Quiet(told, ending) => local.quiet.borrow_mut().push((told, ending)),
            Envelope::Stop => break,
        }
        local.after();
    }
    local.send_posts();
}

async fn seal_turns(local: Rc<Local>) {
    loop {
        local.seal.notified().await;
        local.worker.borrow_mut().seal();
        local.after();
    }
}

async fn post_turns(local: Rc<Local>) {
    loop {
        local.post.notified().await;
        local.send_posts();
    }
}

async fn follow_log(local: Rc<Local>, durable: Arc<Notify>) {
    loop {
        durable.notified().await;
        local.wanted_lsn.set(0);
        {
            let mut worker = local.worker.borrow_mut();
            worker.begin_turn();
            worker.durable();
        }
        local.send_released();
        {
            let mut worker = local.worker.borrow_mut();
            if worker.wants_space() {
                worker.space_changed();
            }
        }
        local.after();
    }
}

async fn keep_time(local: Rc<Local>) {
    let mut idle_checked_ms = 0;
    loop {
        let wait_ms = {
            let worker = local.worker.borrow();
            let next_ms = worker.next_tick_ms().unwrap_or(u64::MAX);
            next_ms.saturating_sub(worker.now_ms()).clamp(1, TICK_MS)
        };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        loop {
            let complete = {
                let mut worker = local.worker.borrow_mut();
                worker.begin_turn();
                // Waits that were missed are found here: nothing may hang on one wake-up alone.
                worker.durable();
                if worker.wants_space() {
                    worker.space_changed();
                }
                worker.tick(EXPIRE_BUDGET)
            };
            local.after();
            if complete {
                break;
            }
            tokio::task::yield_now().await;
        }
        let now_ms = local.worker.borrow().now_ms();
        if now_ms >= idle_checked_ms + 1_000 {
            idle_checked_ms = now_ms;
            local.close_idle(now_ms);
        }
    }
}

/// Messages of this turn for another thread.
#[derive(Default)]
struct Post {
    messages: Vec<Message>,
    /// Calls and answers in them, about.
    calls: usize,
}

impl Post {
    fn send(&mut self, peer: &Mailbox) {
        self.calls = 0;
        if !self.messages.is_empty() {
            // A thread that has ended needs nothing any more.
            let _ = peer.send(Envelope::Turn(std::mem::take(&mut self.messages)));
        }
    }
}

impl Local {
    /// Passes on what the worker made.
    fn after(&self) {
        loop {
            let outbox = self.worker.borrow_mut().take_outbox();
            if outbox.is_empty() {
                break;
            }
            for (to, message) in outbox {
                if to == self.id {
                    self.worker.borrow_mut().message(message);
                } else {
                    self.post_to(to, message);
                }
            }
        }
        let mut worker = self.worker.borrow_mut();
        if worker.wants_seal() {
            self.seal.notify_one();
        }
        if worker.wants_space() {
            self.log.want_space();
        }
        if let Some(lsn) = worker.wanted_lsn()
            && (self.wanted_lsn.get() == 0 || lsn < self.wanted_lsn.get())
        {
            self.wanted_lsn.set(lsn);
            self.log.want(lsn);
        }
        let attention = worker.take_attention();
        let sleep_us = worker.take_sleep_us();
        if !self.quiet.borrow().is_empty() && !worker.wants_seal() {
            self.send_posts();
            let (quiet, may_end) = (worker.is_quiet(), worker.may_end());
            self.quiet.borrow_mut().retain(|(told, ending)| {
                let now = quiet || (*ending && may_end);
                if now {
                    let _ = told.send(());
                }
                !now
            });
        }
        drop(worker);
        for id in attention {
            self.wake(id);
        }
        if sleep_us > 0 {
            self.send_posts();
            // DEBUG SLEEP is meant to block everything here.
            std::thread::sleep(Duration::from_micros(sleep_us));
        }
    }

    /// Keeps a message for another thread until the turn ends, or there is enough for it to do.
    fn post_to(&self, to: ShardId, message: Message) {
        let post = &mut self.posts.borrow_mut()[to];
        post.calls += message.calls().unwrap_or(POST_CALLS);
        post.messages.push(message);
        if post.calls >= POST_CALLS {
            post.send(&self.peers[to]);
        } else {
            self.post.notify_one();
        }
    }

    /// Sends other threads what this one has for them.
    fn send_posts(&self) {
        for (peer, post) in self.peers.iter().zip(&mut *self.posts.borrow_mut()) {
            post.send(peer);
        }
    }

    fn served(&self, id: ConnId) -> Option<Rc<Served>> {
        let served = self.served.borrow().get(id.index)?.clone();
        served.filter(|served| served.client.id == id.client)
    }

    fn wake(&self, id: ConnId) {
        if let Some(served) = self.served(id) {
            served.client.wake();
        }
    }

    /// Sends what was released just now. Only connections that have something else to do, or whose
    /// socket is full, are called for it.
    fn send_released(&self) {
        let attention = self.worker.borrow_mut().take_attention();
        for id in attention {
            let sent = self.served(id).is_some_and(|served| {
                let killed = served.client.killed.load(Ordering::Relaxed);
                served.listens.get() && !killed && matches!(self.write(&served), Ok(Sent::All))
            });
            if !sent || self.worker.borrow_mut().has_work(id) {
                self.wake(id);
            }
        }
    }

    fn accept(&self, accepted: Accepted, client: Arc<Client>) {
        let socket = match Socket::open(accepted) {
            Ok(socket) => RefCell::new(socket),
            Err(error) => {
                tracing::debug!("connection {} is gone already: {error}", client.id);
                return;
            }
        };
        let index = self.worker.borrow_mut().connect(client.clone()).index;
        let served = Served {
            index,
            client: client.clone(),
            socket,
            listens: Cell::new(false),
        };
        let mut all = self.served.borrow_mut();
        all.set(index, Some(Rc::new(served)));
        drop(all);
        client.set_wake(self.wake_client.clone(), index);
        client.wake();
    }

    /// Looks at a connection, and closes it when it is done.
    fn serve(&self, id: ConnId) {
        let Some(served) = self.served(id) else {
            return;
        };
        served.client.looked_at();
        let waker = Waker::from(served.client.clone());
        if self
            .poll_conn(&served, &mut Context::from_waker(&waker))
            .is_ready()
        {
            self.served.borrow_mut().set(id.index, None);
            self.worker.borrow_mut().disconnect(id);
            self.after();
        }
    }

    fn close_idle(&self, now_ms: u64) {
        let timeout_ms = self.shared.settings.settings().timeout_seconds as u64 * 1_000;
        if timeout_ms == 0 {
            return;
        }
        let mut worker = self.worker.borrow_mut();
        for id in worker.conn_ids() {
            let Some(client) = worker.client(id) else {
                continue;
            };
            let idle_ms = now_ms.saturating_sub(client.active_ms.load(Ordering::Relaxed));
            let waits = client.blocked.load(Ordering::Relaxed) || worker.is_waiting(id);
            if idle_ms > timeout_ms && !waits {
                client.killed.store(true, Ordering::Relaxed);
                self.wake(id);
            }
        }
    }

    /// One step of a connection: runs what is there, sends what may leave, reads what has come.
    fn poll_conn(&self, served: &Served, cx: &mut Context<'_>) -> Poll<()> {
        let id = served.id();
        if served.client.killed.load(Ordering::Relaxed) {
            // What is released already is sent as far as the socket takes it.
            let _ = self.write(served);
            return Poll::Ready(());
        }
        let mut worker = self.worker.borrow_mut();
        worker.begin_turn();
        if worker.has_input(id) {
            worker.resume(id);
        }
        drop(worker);
        match self.read(id, &mut served.socket.borrow_mut(), cx) {
            Ok(listens) => served.listens.set(listens),
            Err(_) => return Poll::Ready(()),
        }
        loop {
            match self.write(served) {
                Err(_) => return Poll::Ready(()),
                Ok(Sent::All) => break,
                Ok(Sent::Part) => match served.socket.borrow().poll_write_ready(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {}
                },
            }
        }
        self.after();
        let done = self.worker.borrow_mut().is_done(id);
        if done { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Reads what has come, and runs it. True when the connection is called for what comes next.
    fn read(&self, id: ConnId, socket: &mut Socket, cx: &mut Context<'_>) -> io::Result<bool> {
        for _ in 0..READS_PER_POLL {
            if !self.worker.borrow_mut().may_read(id) {
                return Ok(false);
            }
            let mut scratch = self.scratch.borrow_mut();
            match socket.poll_read(cx, &mut scratch) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) => {
                    if let Some(conn) = self.worker.borrow_mut().conn(id) {
                        conn.eof = true;
                    }
                    return Ok(false);
                }
                Poll::Ready(Ok(bytes)) => {
                    self.worker.borrow_mut().receive(id, &scratch[..bytes]);
                    if bytes == scratch.len() {
                        continue;
                    }
                    // The socket was emptied; this registers for what comes next.
                    if socket.poll_read_ready(cx).is_pending() {
                        return Ok(true);
                    }
                }
            }
        }
        // There may be more, but others have their turn first.
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// Sends released bytes as far as the socket takes them.
    fn write(&self, served: &Served) -> io::Result<Sent> {
        let id = served.id();
        let socket = served.socket.borrow();
        let mut worker = self.worker.borrow_mut();
        loop {
            let Some(released) = worker.output(id) else {
                return Ok(Sent::All);
            };
            let released_bytes = released.bytes().len();
            if released_bytes == 0 {
                worker.hold_watch(id);
                return Ok(Sent::All);
            }
            match socket.try_write(released.bytes()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    let sent_bytes = &served.client.sent_bytes;
                    sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    worker.sent(id, bytes);
                    if bytes == released_bytes {
                        worker.hold_watch(id);
                        return Ok(Sent::All);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    worker.check_unread(id)?;
                    return Ok(Sent::Part);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// How far released bytes went.
enum Sent {
    /// Nothing is left.
    All,
    /// The socket takes no more for now.
    Part,
}

impl Served {
    fn id(&self) -> ConnId {
        ConnId {
            index: self.index,
            client: self.client.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_takes_little_memory() {
        // Beside it: its place among the worker's and here, its client's record, and what the
        // event loop knows of its socket.
        assert!(size_of::<Served>() <= 64, "{}", size_of::<Served>());
    }
}
