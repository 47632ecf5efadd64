//! A request's way to a backend and the answer's way back: who gets it, what is tried again, when to give up.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    Report, Worker,
    answers::{Extra, Own},
    bench::{Bench, Permit, Visit, Wanted},
    ends::{Download, Fault, Upload},
    link::Link,
    over_http1, over_http2,
    watch::Watch,
};
use crate::{
    config::{HttpVersion, ProxyProtocol, RetryOn},
    http::{self, BadAnswer},
    steering::{blast::Verdict, ejection::Outcome},
    tally::{BackendCell, SiteCell},
};

/// A request that passed every check, ready to be sent as often as it takes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) bench: Rc<Bench>,
    /// Its head, as HTTP/1.1 backends get it.
    pub(super) head: Vec<u8>,
    /// The same for HTTP/2.
    pub(super) parts: Option<::http::Request<()>>,
    pub(super) is_idempotent: bool,
    pub(super) kind: http::Asked,
    pub(super) is_chunked: bool,
    /// The client said that it takes fields after a body.
    pub(super) wants_trailers: bool,
    pub(super) fingerprint: u64,
    pub(super) wanted: Wanted,
    /// The client has no sticky cookie of a backend yet, and shall get one.
    pub(super) wants_cookie: bool,
    pub(super) is_encrypted: bool,
    pub(super) begun: Instant,
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) status: u16,
    /// What the proxy must answer itself: nothing was sent to the client.
    pub(super) own: Option<Own>,
    /// Whether request and answer were whole, so that the connection may serve again.
    pub(super) is_whole: bool,
    pub(super) backend: Option<Arc<str>>,
    pub(super) attempts: u32,
    pub(super) remark: Option<&'static str>,
}

/// What went wrong with an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trouble {
    /// The answer is no HTTP, or of doubtful end.
    Bad(BadAnswer),
    Client(Fault),
    /// The answer had begun.
    Cut,
    /// Lost, and the backend takes no new connection.
    Died,
    /// The connection ended before a byte of the answer; the backend lives.
    Lost,
    /// No connection: nothing was sent.
    NoConnection,
    /// An answer that may be asked for again elsewhere.
    Status(u16),
    Timeout,
    /// The backend says that it did not look at the request.
    Unheeded,
}

/// What an attempt that worked says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// Request and answer were whole.
    pub(super) is_whole: bool,
}

/// What over_http1 and over_http2 need to know of the attempt.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) asked: &'a Asked,
    pub(super) visit: &'a Visit,
    pub(super) watch: &'a Watch,
    /// When the head of the answer must be there.
    pub(super) deadline: Instant,
    /// Whether an answer like 503 may be asked for again elsewhere.
    pub(super) may_ask_again: bool,
    pub(super) cookie: Option<String>,
}

/// Finds a backend for the request and brings its answer to the client.
pub(super) async fn exchange<U: Upload, D: Download>(
    worker: &Rc<Worker>,
    asked: &Asked,
    mut upload: Option<U>,
    download: &mut D,
    watch: &Watch,
) -> Ending {
    let bench = &asked.bench;
    let service = &bench.site.service;
    let tally = &worker.shared.tally;
    let Some(_permit) = enter(bench, asked).await else {
        tally.add(bench.site.id, SiteCell::Shed, 1);
        return Ending::own(Own::new(503, "shed").after(service.queue.retry_after));
    };
    bench.earn();
    let mut tried = Vec::new();
    let mut repeated = 0;
    let mut last = None;
    loop {
        let Some(visit) = bench.choose(&asked.wanted, &tried, worker) else {
            break;
        };
        let attempts = u32::try_from(tried.len()).unwrap_or(u32::MAX) + 1;
        let attempt = Attempt {
            worker,
            asked,
            watch,
            deadline: deadline(asked),
            may_ask_again: asked.is_idempotent && repeated < service.retries.most,
            cookie: cookie(asked, &visit),
            visit: &visit,
        };
        let result = attempt.run(&mut upload, download).await;
        let mut ending = match result {
            Ok(answered) => Ending::answered(answered),
            Err(trouble) => {
                let again = attempt.settle(trouble, upload.is_some(), repeated);
                if again != Again::No {
                    repeated += u8::from(again == Again::Repeated);
                    last = Some((trouble, Arc::clone(&visit.backend.spec.name)));
                    tried.push(visit.index);
                    continue;
                }
                Ending::troubled(trouble, download.sent() > 0)
            }
        };
        ending.attempts = attempts;
        ending.backend = Some(Arc::clone(&visit.backend.spec.name));
        return ending;
    }
    let Some((trouble, backend)) = last else {
        tally.add(bench.site.id, SiteCell::Unavailable, 1);
        return Ending::own(Own::new(503, "no backend").after(service.queue.retry_after));
    };
    let mut ending = Ending::troubled(trouble, false);
    ending.attempts = u32::try_from(tried.len()).unwrap_or(u32::MAX);
    ending.backend = Some(backend);
    ending
}

/// Waiting for room is rare; its future is not carried along by every request.
async fn enter(bench: &Bench, asked: &Asked) -> Option<Permit> {
    match bench.enter_now(asked.begun) {
        Some(permit) => Some(permit),
        None => Box::pin(bench.enter(asked.begun)).await,
    }
}

fn deadline(asked: &Asked) -> Instant {
    let timeouts = &asked.bench.site.service.timeouts;
    (Instant::now() + timeouts.attempt).min(asked.begun + timeouts.request)
}

/// `Path=/` reaches the whole site; `Secure` and `HttpOnly` because nobody but the proxy needs it.
fn cookie(asked: &Asked, visit: &Visit) -> Option<String> {
    asked.wants_cookie.then(|| {
        format!(
            "{STICKY_COOKIE}={:016x}; Path=/; HttpOnly; SameSite=Lax{}",
            asked.bench.identity(visit.index),
            if asked.is_encrypted { "; Secure" } else { "" }
        )
    })
}

/// The cookie that keeps a client at one backend.
pub(super) const STICKY_COOKIE: &str = "foobar-backend";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Again {
    /// Nothing was done: elsewhere it is tried for the first time.
    First,
    No,
    Repeated,
}

impl Attempt<'_> {
    async fn run<U: Upload, D: Download>(
        &self,
        upload: &mut Option<U>,
        download: &mut D,
    ) -> Result<Answered, Trouble> {
        let tally = &self.worker.shared.tally;
        let backend = &self.visit.backend;
        tally.add_to_backend(backend.spec.id, BackendCell::Requests, 1);
        if self.asked.bench.site.service.backend_protocol == HttpVersion::Http2 {
            return over_http2::run(self, upload, download).await;
        }
        let now = self.asked.begun;
        let idle = self.asked.bench.site.service.timeouts.backend_idle;
        let waiting = backend.pool.take(self.owner(), now, idle);
        let mut link = match waiting {
            Some(link) => link,
            None => Box::pin(self.connect()).await?,
        };
        let result = over_http1::run(self, &mut link, upload, download).await;
        match result {
            Err(Trouble::Lost) => {
                let was_reused = link.is_reused;
                drop(link);
                Box::pin(self.second_look(was_reused, upload, download)).await
            }
            Ok((answered, Reuse::Link)) => {
                backend.give_back(link, Instant::now());
                Ok(answered)
            }
            Ok((answered, Reuse::Nothing)) => Ok(answered),
            Err(trouble) => Err(trouble),
        }
    }

    /// The connection ended before a byte of the answer. A new one tells whether the backend died, or had only grown
    /// tired of an idle connection, in which case the request may go there once more.
    async fn second_look<U: Upload, D: Download>(
        &self,
        was_reused: bool,
        upload: &mut Option<U>,
        download: &mut D,
    ) -> Result<Answered, Trouble> {
        let backend = &self.visit.backend;
        let tally = &self.worker.shared.tally;
        tally.add_to_backend(backend.spec.id, BackendCell::Resets, 1);
        let Ok(mut link) = self.connect().await else {
            return Err(Trouble::Died);
        };
        if !was_reused || !self.asked.is_idempotent || upload.is_some() {
            backend.give_back(link, Instant::now());
            return Err(Trouble::Lost);
        }
        match over_http1::run(self, &mut link, upload, download).await {
            Ok((answered, Reuse::Link)) => {
                backend.give_back(link, Instant::now());
                Ok(answered)
            }
            Ok((answered, Reuse::Nothing)) => Ok(answered),
            Err(Trouble::Lost) => match self.connect().await {
                Ok(link) => {
                    backend.give_back(link, Instant::now());
                    Err(Trouble::Lost)
                }
                Err(_) => Err(Trouble::Died),
            },
            Err(trouble) => Err(trouble),
        }
    }

    fn owner(&self) -> Option<SocketAddr> {
        let asks = self.asked.bench.site.service.proxy_protocol_to.is_some();
        asks.then_some(self.asked.client)
    }

    async fn connect(&self) -> Result<Link, Trouble> {
        let service = &self.asked.bench.site.service;
        let backend = &self.visit.backend;
        let tally = &self.worker.shared.tally;
        tally.add_to_backend(backend.spec.id, BackendCell::Connects, 1);
        let announced: Option<(ProxyProtocol, _, _)> = service
            .proxy_protocol_to
            .map(|version| (version, self.asked.client, self.asked.local));
        let connecting = backend
            .pool
            .connect(&backend.spec, announced, &self.worker.answers);
        let connected = tokio::time::timeout(service.timeouts.connect, connecting).await;
        match connected {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => {
                tracing::debug!(backend = %backend.spec.name, %error, "no connection");
            }
            Err(_) => tracing::debug!(backend = %backend.spec.name, "connecting took too long"),
        }
        self.no_connection();
        Err(Trouble::NoConnection)
    }

    pub(super) fn no_connection(&self) {
        let backend = &self.visit.backend;
        let tally = &self.worker.shared.tally;
        tally.add_to_backend(backend.spec.id, BackendCell::ConnectFailures, 1);
        self.worker.shared.report(Report::Lost {
            site: Arc::clone(&self.asked.bench.site.name),
            backend: Arc::clone(&backend.spec.name),
        });
    }

    /// The head of the answer is there: the backend is judged by it.
    pub(super) fn judge(&self, status: u16, took: Duration, now: Instant) {
        let backend = &self.visit.backend;
        backend.answered(took, now);
        let tally = &self.worker.shared.tally;
        tally.backend_answered(backend.spec.id, status, took);
        let outcome = if status < 500 {
            let memory = &self.worker.shared.memory;
            memory.answered(self.asked.fingerprint, now);
            Outcome::Good
        } else {
            Outcome::Bad
        };
        self.asked.bench.observe(self.visit, outcome, now);
    }

    /// Whether this status is asked for again elsewhere.
    pub(super) fn asks_again(&self, status: u16) -> bool {
        self.may_ask_again
            && self
                .asked
                .bench
                .site
                .service
                .retries
                .on
                .contains(&RetryOn::Status(status))
    }

    pub(super) fn extra(&self) -> Extra<'_> {
        let hsts = self.asked.bench.hsts.as_deref();
        Extra {
            hsts: hsts.filter(|_| self.asked.is_encrypted),
            cookie: self.cookie.as_deref(),
        }
    }

    /// Counts what happened, and says whether the request is tried again.
    fn settle(&self, trouble: Trouble, has_body: bool, repeated: u8) -> Again {
        let now = Instant::now();
        self.count(trouble, now);
        let again = self.again(trouble, has_body, repeated, now);
        let tally = &self.worker.shared.tally;
        let site = self.asked.bench.site.id;
        if again != Again::No {
            tally.add(site, SiteCell::Retries, 1);
            tally.add_to_backend(self.visit.backend.spec.id, BackendCell::Retries, 1);
        } else if matches!(trouble, Trouble::Cut | Trouble::Died | Trouble::Lost) {
            tally.add(site, SiteCell::Lost, 1);
        }
        again
    }

    fn again(&self, trouble: Trouble, has_body: bool, repeated: u8, now: Instant) -> Again {
        let service = &self.asked.bench.site.service;
        let is_safe = match trouble {
            Trouble::NoConnection | Trouble::Unheeded => {
                service.retries.on.contains(&RetryOn::Connect)
            }
            Trouble::Lost => self.is_repeatable(has_body, RetryOn::Reset),
            Trouble::Timeout => self.is_repeatable(has_body, RetryOn::Timeout),
            Trouble::Status(status) => self.is_repeatable(has_body, RetryOn::Status(status)),
            Trouble::Died => {
                let verdict = self.blame(now);
                verdict == Verdict::Innocent && self.is_repeatable(has_body, RetryOn::Reset)
            }
            Trouble::Bad(_) | Trouble::Client(_) | Trouble::Cut => return Again::No,
        };
        if !is_safe || now >= self.asked.begun + service.timeouts.request {
            return Again::No;
        }
        // Where nothing was done nothing is done twice: such a request costs the others no more than the first time.
        if matches!(trouble, Trouble::NoConnection | Trouble::Unheeded) {
            return Again::First;
        }
        if repeated >= service.retries.most {
            return Again::No;
        }
        if !self.asked.bench.spend(now) {
            let tally = &self.worker.shared.tally;
            tally.add(self.asked.bench.site.id, SiteCell::RetriesDenied, 1);
            return Again::No;
        }
        Again::Repeated
    }

    fn is_repeatable(&self, has_body: bool, cause: RetryOn) -> bool {
        let on = &self.asked.bench.site.service.retries.on;
        self.asked.is_idempotent && !has_body && on.contains(&cause)
    }

    fn count(&self, trouble: Trouble, now: Instant) {
        let tally = &self.worker.shared.tally;
        let id = self.visit.backend.spec.id;
        let cell = match trouble {
            Trouble::Bad(_) => BackendCell::BadAnswers,
            Trouble::Cut | Trouble::Lost => BackendCell::Resets,
            Trouble::Timeout => BackendCell::Timeouts,
            Trouble::Died => BackendCell::Deaths,
            Trouble::NoConnection | Trouble::Unheeded => {
                self.asked.bench.observe(self.visit, Outcome::Bad, now);
                return;
            }
            Trouble::Client(_) | Trouble::Status(_) => return,
        };
        tally.add_to_backend(id, cell, 1);
        self.asked.bench.observe(self.visit, Outcome::Bad, now);
    }

    /// The backend died under this request, perhaps of it.
    fn blame(&self, now: Instant) -> Verdict {
        let memory = &self.worker.shared.memory;
        let fingerprint = self.asked.fingerprint;
        memory.died(
            fingerprint,
            self.visit.backend.in_flight.get(),
            &self.asked.bench.site.service.blast_radius,
            now,
        )
    }
}

/// What remains of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reuse {
    Link,
    Nothing,
}

impl Ending {
    pub(super) fn own(own: Own) -> Self {
        Self {
            status: own.status,
            remark: Some(own.remark),
            own: Some(own),
            is_whole: false,
            backend: None,
            attempts: 0,
        }
    }

    fn answered(answered: Answered) -> Self {
        Self {
            status: answered.status,
            own: None,
            is_whole: answered.is_whole,
            backend: None,
            attempts: 0,
            remark: None,
        }
    }

    fn troubled(trouble: Trouble, has_begun: bool) -> Self {
        let own = match trouble {
            Trouble::Client(Fault::Refused(refusal)) => Own::refusal(refusal),
            Trouble::Client(Fault::Slow) => Own::new(408, Fault::Slow.remark()),
            Trouble::Client(Fault::Gone) => {
                let mut ending = Self::own(Own::new(499, Fault::Gone.remark()));
                ending.own = None;
                return ending;
            }
            Trouble::Bad(_) => Own::new(502, "bad answer"),
            Trouble::Cut => Own::new(502, "answer cut short"),
            Trouble::Died => Own::new(502, "backend died"),
            Trouble::Lost => Own::new(502, "connection lost"),
            Trouble::NoConnection => Own::new(502, "no connection"),
            Trouble::Status(status) => Own::new(status, "answer withheld"),
            Trouble::Timeout => Own::new(504, "timeout"),
            Trouble::Unheeded => Own::new(502, "refused by the backend"),
        };
        let mut ending = Self::own(own);
        if has_begun {
            ending.own = None;
        }
        ending
    }
}

/// Runs `upload` beside `answer` until the answer is whole; says whether the upload is whole then.
pub(super) async fn beside<T>(
    upload: impl Future<Output = Result<(), Trouble>>,
    answer: impl Future<Output = Result<T, Trouble>>,
) -> (Result<T, Trouble>, bool) {
    let (mut upload, mut answer) = (pin!(upload), pin!(answer));
    let mut uploaded = None;
    std::future::poll_fn(|context| {
        if uploaded.is_none()
            && let Poll::Ready(result) = upload.as_mut().poll(context)
        {
            match result {
                Ok(()) => uploaded = Some(true),
                // The backend may have answered before it stopped listening.
                Err(Trouble::Lost) => uploaded = Some(false),
                Err(trouble) => return Poll::Ready((Err(trouble), false)),
            }
        }
        let is_whole = uploaded == Some(true);
        answer
            .as_mut()
            .poll(context)
            .map(|result| (result, is_whole))
    })
    .await
}
