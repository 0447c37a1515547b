//! Puts a [`Worker`] on a thread: sockets, wake-ups and timers around the plain core.
//!
//! Always true: no borrow of the worker is held over an await; a turn is what the ready tasks do
//! before the seal task runs, which the turn's first write wakes. What a turn has for another
//! thread leaves in few pieces, when the ready tasks are through at the latest, in the order in
//! which it was made.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::limits::READ_BYTES_MAX;
use crate::log::{Log, Subscription};
use crate::session::{Client, Shared, Wake};
use crate::shard::mailbox::{ConnId, Message, ShardId};
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
/// Reads of one connection before others have their turn.
const READS_PER_POLL: usize = 4;

/// The half of a socket that its task reads.
enum Incoming {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// The half of a socket that whoever has released bytes writes.
enum Outgoing {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

fn open(accepted: Accepted) -> io::Result<(Incoming, Outgoing)> {
    match accepted {
        Accepted::Tcp(stream) => {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let (read, write) = TcpStream::from_std(stream)?.into_split();
            Ok((Incoming::Tcp(read), Outgoing::Tcp(write)))
        }
        Accepted::Unix(stream) => {
            stream.set_nonblocking(true)?;
            let (read, write) = UnixStream::from_std(stream)?.into_split();
            Ok((Incoming::Unix(read), Outgoing::Unix(write)))
        }
    }
}

impl Incoming {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let polled = match self {
            Incoming::Tcp(half) => Pin::new(half).poll_read(cx, &mut buffer),
            Incoming::Unix(half) => Pin::new(half).poll_read(cx, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    /// Whether there is more to read right now; if not, whoever polls is woken when there is.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Incoming::Tcp(half) => half.as_ref().poll_read_ready(cx),
            Incoming::Unix(half) => half.as_ref().poll_read_ready(cx),
        }
    }
}

impl Outgoing {
    /// Writes what the socket takes right now.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Outgoing::Tcp(half) => half.try_write(bytes),
            Outgoing::Unix(half) => half.try_write(bytes),
        }
    }

    /// Whether the socket takes more; if not, whoever polls is woken when it does.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Outgoing::Tcp(half) => half.as_ref().poll_write_ready(cx),
            Outgoing::Unix(half) => half.as_ref().poll_write_ready(cx),
        }
    }
}

/// A connection's socket, as its task and the rest of the thread have it.
struct Served {
    local: Rc<Local>,
    id: ConnId,
    client: Arc<Client>,
    incoming: RefCell<Incoming>,
    outgoing: Outgoing,
    /// Of the task that serves it.
    waker: RefCell<Option<Waker>>,
    /// The task is woken when the socket has something to read.
    listens: Cell<bool>,
}

struct Local {
    id: ShardId,
    worker: RefCell<Worker>,
    shared: Arc<Shared>,
    peers: Vec<Mailbox>,
    served: RefCell<Vec<Option<Rc<Served>>>>,
    /// What others wake a connection with.
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
    let local = Rc::new(Local {
        id: parts.id,
        shared: parts.shared.clone(),
        wake_client: wake_by(peers[parts.id].clone()),
        posts: RefCell::new(peers.iter().map(|_| Post::default()).collect()),
        post: Notify::new(),
        peers,
        served: RefCell::new(Vec::new()),
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
    tasks.spawn_local(seal_turns(local.clone()));
    tasks.spawn_local(post_turns(local.clone()));
    tasks.spawn_local(follow_log(local.clone(), durable));
    tasks.spawn_local(keep_time(local.clone()));
    tasks.block_on(runtime, receive(local.clone(), inbox));
    local.served.borrow_mut().clear();
}

fn wake_by(mailbox: Mailbox) -> Wake {
    Arc::new(move |index, client| {
        // A thread that has ended has no connections.
        let _ = mailbox.send(Envelope::Message(Message::Wake(ConnId { index, client })));
    })
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
        self.served.borrow().get(id.index as usize)?.clone()
    }

    fn wake(&self, id: ConnId) {
        if let Some(served) = self.served(id)
            && let Some(waker) = &*served.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Sends what was released just now. Only connections that have something else to do, or whose
    /// socket is full, have their task woken for it.
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

    fn accept(self: &Rc<Self>, accepted: Accepted, client: Arc<Client>) {
        let (incoming, outgoing) = match open(accepted) {
            Ok(halves) => halves,
            Err(error) => {
                tracing::debug!("connection {} is gone already: {error}", client.id);
                return;
            }
        };
        let id = self.worker.borrow_mut().connect(client.clone());
        client.set_wake(Some((self.wake_client.clone(), id.index)));
        let served = Rc::new(Served {
            local: self.clone(),
            id,
            client,
            incoming: RefCell::new(incoming),
            outgoing,
            waker: RefCell::default(),
            listens: Cell::new(false),
        });
        let mut all = self.served.borrow_mut();
        if all.len() <= id.index as usize {
            all.resize_with(id.index as usize + 1, || None);
        }
        all[id.index as usize] = Some(served.clone());
        drop(all);
        tokio::task::spawn_local(Serve(served));
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
        let id = served.id;
        served.keep_waker(cx);
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
        match self.read(id, &mut served.incoming.borrow_mut(), cx) {
            Ok(listens) => served.listens.set(listens),
            Err(_) => return Poll::Ready(()),
        }
        loop {
            match self.write(served) {
                Err(_) => return Poll::Ready(()),
                Ok(Sent::All) => break,
                Ok(Sent::Part) => match served.outgoing.poll_ready(cx) {
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

    /// Reads what has come, and runs it. True when the task is woken for what comes next.
    fn read(&self, id: ConnId, incoming: &mut Incoming, cx: &mut Context<'_>) -> io::Result<bool> {
        for _ in 0..READS_PER_POLL {
            if !self.worker.borrow_mut().may_read(id) {
                return Ok(false);
            }
            let mut scratch = self.scratch.borrow_mut();
            match incoming.poll_read(cx, &mut scratch) {
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
                    if incoming.poll_ready(cx).is_pending() {
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
        let id = served.id;
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
            match served.outgoing.try_write(released.bytes()) {
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

/// The task of a connection. It has nothing of its own: an idle one takes little memory.
struct Serve(Rc<Served>);

impl Future for Serve {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let served = &self.0;
        let polled = served.local.poll_conn(served, cx);
        if polled.is_ready() {
            served.client.set_wake(None);
            if let Some(place) = served
                .local
                .served
                .borrow_mut()
                .get_mut(served.id.index as usize)
            {
                *place = None;
            }
            served.local.worker.borrow_mut().disconnect(served.id);
            served.local.after();
        }
        polled
    }
}

impl Served {
    fn keep_waker(&self, cx: &Context<'_>) {
        let waker = &mut *self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}
