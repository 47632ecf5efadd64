//! `foobar top`: a screen of what happens, second by second.

mod keys;
mod screen;
mod state;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use foobar::admin::{
    api::{Maps, Request, Response},
    client,
};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};

use self::state::{After, Screen};
use super::{
    arguments::Arguments,
    failure::{Failure, Status},
    output::colors,
};

/// Until `q`.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::told(
            Status::Usage,
            "top needs a terminal; `foobar stats -w -o jsonl` streams the same",
        ));
    }
    let socket = super::socket(arguments)?;
    let ask = || {
        client::ask(
            &socket,
            &Request::Snapshot {
                maps: Maps::LeftOut,
            },
        )
    };
    // Whoever is not permitted is told so on a screen that stays.
    let first = ask()?;
    let mut screen = Screen::new(colors(true));
    take(&mut screen, Ok(first));
    let mut terminal = ratatui::try_init().map_err(|error| Failure::failed(&error))?;
    let result = interact(&mut terminal, &mut screen, &ask);
    ratatui::restore();
    result.map_err(|error| Failure::failed(&error))
}

fn interact(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    ask: &impl Fn() -> Result<Response, client::ClientError>,
) -> io::Result<()> {
    let mut asked = Instant::now();
    loop {
        terminal.draw(|frame| screen::draw(screen, frame))?;
        let patience = PERIOD.saturating_sub(asked.elapsed());
        if event::poll(patience)?
            && let Event::Key(key) = event::read()?
            && keys::press(screen, key) == After::Leave
        {
            return Ok(());
        }
        if asked.elapsed() >= PERIOD {
            asked = Instant::now();
            take(screen, ask());
        }
    }
}

fn take(screen: &mut Screen, answer: Result<Response, client::ClientError>) {
    match answer {
        Ok(Response::Snapshot(snapshot)) => screen.take(*snapshot),
        Ok(_) => screen.miss("the controller is of another version".to_owned()),
        Err(error) => screen.miss(error.to_string()),
    }
}

const PERIOD: Duration = Duration::from_secs(1);
