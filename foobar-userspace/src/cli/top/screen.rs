//! Draws the screen, from 40 columns upwards.

use foobar::admin::api::{AlertState, Snapshot};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::bar,
    text::{Line, Span},
    widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table},
};

use super::{
    super::output::short,
    state::{Mode, Panel, Row, RowState, Screen, Sort},
};

pub fn draw(screen: &Screen, frame: &mut Frame<'_>) {
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header(screen)), head);
    frame.render_widget(Paragraph::new(panels(screen)), tabs);
    table(screen, frame, body);
    frame.render_widget(Paragraph::new(footer(screen)), foot);
    if screen.mode == Mode::Help {
        help(frame);
    }
}

fn header(screen: &Screen) -> Vec<Line<'static>> {
    let Some(snapshot) = &screen.snapshot else {
        return vec![Line::from("no snapshot yet")];
    };
    let mut first = vec![Span::styled(
        format!("foobar on {}", snapshot.node),
        Style::new().add_modifier(Modifier::BOLD),
    )];
    if let Some(controller) = &snapshot.controller {
        let seconds = (controller.at - controller.started_at).max(0.0);
        first.push(Span::raw(format!(
            "  {}  up {}  generation {}",
            controller.version,
            uptime(seconds),
            controller.generation
        )));
        let generic = controller.interfaces.iter().any(|one| one.xdp == "generic");
        if generic {
            first.push(paint(screen, "  generic XDP!", RowState::Doubtful));
        }
        if controller.reload_failed {
            first.push(paint(screen, "  reload failed!", RowState::Bad));
        }
    }
    vec![Line::from(first), summary(screen, snapshot)]
}

fn summary(screen: &Screen, snapshot: &Snapshot) -> Line<'static> {
    let view = foobar::monitor::view::view(snapshot);
    let qps = view.qps();
    let out = view.bytes_out();
    let dropped: f64 = view.drops.iter().map(|(_, rate)| rate).sum();
    let mut spans = vec![Span::raw(format!(
        "{} qps  {}bit/s out  {} drops/s",
        short(qps),
        short(out * 8.0),
        short(dropped)
    ))];
    let firing: Vec<&str> = snapshot
        .alerts
        .iter()
        .filter(|alert| alert.state == AlertState::Firing)
        .map(|alert| alert.name.as_str())
        .collect();
    if !firing.is_empty() {
        let text = format!("  ALERT {}", firing.join(", "));
        spans.push(paint(screen, text, RowState::Bad));
    }
    Line::from(spans)
}

fn uptime(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole minutes"
    )]
    let minutes = (seconds / 60.0) as u64;
    match minutes {
        0..60 => format!("{minutes} min"),
        60..2_880 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d", minutes / 1_440),
    }
}

fn panels(screen: &Screen) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, panel) in (1..).zip(Panel::ALL) {
        let style = if panel == screen.panel {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        spans.push(Span::styled(format!(" {number} {} ", panel.name()), style));
    }
    Line::from(spans)
}

fn table(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let rows = screen.rows();
    if rows.is_empty() {
        let text = match (&screen.trouble, screen.panel, screen.filter.is_empty()) {
            (_, _, false) => format!("nothing contains `{}`", screen.filter),
            (_, Panel::Mysql, true) => "no [mysql] service on this node".to_owned(),
            (_, Panel::Drops, true) => "nothing was dropped yet".to_owned(),
            _ => "nothing to show".to_owned(),
        };
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let width = usize::from(area.width);
    // The line of the last seconds takes what the names leave.
    let longest = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    // Below that, names and rates matter more than the rest.
    let is_slim = width < 60;
    let names = match is_slim {
        true => width.saturating_sub(8 + 8 + 8 + 6).max(12),
        false => longest.clamp(12, (width / 2).max(12)),
    };
    let rest = if is_slim { 0 } else { 8 };
    let fixed = 8 + 8 + 8 + 8 + 8 + 6;
    let line = width.saturating_sub(names + fixed).min(60);
    let body = rows
        .iter()
        .skip(screen.first_row)
        .take(usize::from(area.height))
        .map(|row| table_row(screen, row, line));
    let [name, state, rate, a, b, total] = screen.panel.heads();
    let heads = TableRow::new([name, state, rate, a, b, total, ""])
        .style(Style::new().add_modifier(Modifier::BOLD));
    let columns = |width: usize| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX));
    let widths = [names, 8, 8, rest, 8, rest, line].map(columns);
    frame.render_widget(
        Table::new(body, widths).header(heads).column_spacing(1),
        area,
    );
}

fn table_row<'a>(screen: &Screen, row: &'a Row, width: usize) -> TableRow<'a> {
    let cell = |index: usize| row.cells.get(index).map_or("", String::as_str);
    let state = Span::styled(
        cell(0),
        row.state
            .map_or_else(Style::new, |state| style(screen, state)),
    );
    let rate = row.rate.map_or_else(|| "-".to_owned(), short);
    TableRow::new([
        Cell::from(row.name.as_str()),
        Cell::from(state),
        Cell::from(format!("{rate:>7}")),
        Cell::from(format!("{:>7}", cell(1))),
        Cell::from(format!("{:>7}", cell(2))),
        Cell::from(format!("{:>7}", cell(3))),
        Cell::from(sparkline(&screen.line(&row.name, width))),
    ])
}

/// Eighths of a line's height against its own highest.
fn sparkline(values: &[u64]) -> String {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    values
        .iter()
        .map(|value| {
            let eighths = (value * 8).div_ceil(most);
            BARS[usize::try_from(eighths).unwrap_or(8).min(8)]
        })
        .collect()
}

fn footer(screen: &Screen) -> Line<'static> {
    if let Some(trouble) = &screen.trouble {
        return Line::from(paint(screen, trouble.clone(), RowState::Bad));
    }
    let sort = match screen.sort {
        Sort::Name => "name",
        Sort::Rate => "rate",
        Sort::Total => "total",
    };
    let text = match screen.mode {
        Mode::Filter => format!("filter: {}_", screen.filter),
        Mode::Paused => "PAUSED (p goes on)".to_owned(),
        Mode::Help | Mode::Watch if screen.filter.is_empty() => {
            format!("sorted by {sort} (s)  / filter  p pause  ? help  q quit")
        }
        Mode::Help | Mode::Watch => {
            format!("only `{}` (Esc: all)  sorted by {sort} (s)", screen.filter)
        }
    };
    Line::from(Span::styled(text, Style::new().add_modifier(Modifier::DIM)))
}

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let width = area.width.min(46);
    let height = area
        .height
        .min(u16::try_from(HELP.len()).unwrap_or(u16::MAX) + 2);
    let popup = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Clear, popup);
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" keys ")),
        popup,
    );
}

fn paint(screen: &Screen, text: impl Into<String>, state: RowState) -> Span<'static> {
    Span::styled(text.into(), style(screen, state))
}

/// Without colours what is bad is bold.
fn style(screen: &Screen, state: RowState) -> Style {
    if !screen.colors {
        return match state {
            RowState::Bad => Style::new().add_modifier(Modifier::BOLD),
            RowState::Doubtful | RowState::Good => Style::new(),
        };
    }
    Style::new().fg(match state {
        RowState::Bad => Color::Red,
        RowState::Doubtful => Color::Yellow,
        RowState::Good => Color::Green,
    })
}

const BARS: [&str; 9] = [
    " ",
    bar::ONE_EIGHTH,
    bar::ONE_QUARTER,
    bar::THREE_EIGHTHS,
    bar::HALF,
    bar::FIVE_EIGHTHS,
    bar::THREE_QUARTERS,
    bar::SEVEN_EIGHTHS,
    bar::FULL,
];

const HELP: &[&str] = &[
    "Tab, 1 to 5   next panel, this panel",
    "s             sort by rate, total, name",
    "/             filter; Enter keeps, Esc ends it",
    "j k, arrows   down, up; PgDn PgUp; g G",
    "p, space      pause",
    "q, Esc        leave",
];

#[cfg(test)]
mod tests {
    use foobar::admin::api::{
        AlertLine, BackendCounters, BackendState, Count, CountRate, RuleCounters, ServiceCounters,
        TrafficCount, TrafficRate,
    };
    use ratatui::{
        Terminal,
        backend::TestBackend,
        crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    };

    use super::{
        super::{keys::press, state::After},
        *,
    };

    fn snapshot(qps: f64) -> Snapshot {
        let traffic = |qps| TrafficCount {
            connections: 1_234,
            per_second: Some(TrafficRate {
                qps,
                bytes_out: 1e6,
                ..TrafficRate::default()
            }),
            ..TrafficCount::default()
        };
        let backend = |host: &str, state, qps| BackendCounters {
            host: host.to_owned(),
            port: 80,
            weight: Some(1),
            state: Some(state),
            traffic: traffic(qps),
        };
        let rule = |name: &str, packets| RuleCounters {
            policy: "edge".into(),
            rule: name.into(),
            count: Count {
                packets: 7,
                bytes: 420,
                per_second: Some(CountRate {
                    packets,
                    bytes: packets * 60.0,
                }),
            },
        };
        Snapshot {
            node: "lb1".to_owned(),
            services: vec![ServiceCounters {
                name: "l4.plain".to_owned(),
                vip: "203.0.113.10:8080".to_owned(),
                traffic: traffic(qps),
                backends: vec![
                    backend("web1", BackendState::Up, qps),
                    backend("web2", BackendState::Down, 0.0),
                ],
            }],
            rules: vec![rule("ssh", 1.0), rule("web", 50.0)],
            alerts: vec![AlertLine {
                name: "busy".to_owned(),
                metric: "qps".to_owned(),
                of: None,
                severity: "warning".to_owned(),
                state: AlertState::Firing,
                threshold: "above 5/s".to_owned(),
                value: Some(6.0),
                said: None,
                since: None,
            }],
            ..Snapshot::default()
        }
    }

    fn screen() -> Screen {
        let mut screen = Screen::new(false);
        for second in 0..30 {
            screen.take(snapshot(f64::from(second)));
        }
        screen
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(screen, frame)).expect("drawn");
        terminal.backend().to_string()
    }

    fn key(screen: &mut Screen, code: KeyCode) -> After {
        press(screen, KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn has(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn eighty_columns_show_services_with_their_last_seconds() {
        let text = drawn(&screen(), 80, 24);
        has(
            &text,
            &[
                "foobar on lb1",
                "29 qps",
                "ALERT busy",
                "1 services",
                "l4.plain",
                "1/2",
                "1.23k",
                bar::FULL,
                "? help",
            ],
        );
    }

    #[test]
    fn a_service_whose_backends_are_not_checked_is_not_called_down() {
        let mut snapshot = snapshot(1.0);
        for backend in &mut snapshot.services[0].backends {
            backend.state = None;
        }
        let mut screen = Screen::new(false);
        screen.take(snapshot);
        has(&drawn(&screen, 80, 24), &["by role"]);
        assert!(screen.rows()[0].state.is_none());
    }

    #[test]
    fn panels_are_turned_and_sorted_and_filtered() {
        let mut screen = screen();
        key(&mut screen, KeyCode::Char('3'));
        assert_eq!(screen.rows()[0].name, "edge/web", "the busiest first");
        key(&mut screen, KeyCode::Char('s'));
        key(&mut screen, KeyCode::Char('s'));
        assert_eq!(screen.rows()[0].name, "edge/ssh", "by name");
        key(&mut screen, KeyCode::Char('/'));
        for letter in "web".chars() {
            key(&mut screen, KeyCode::Char(letter));
        }
        has(&drawn(&screen, 80, 24), &["filter: web_", "edge/web"]);
        key(&mut screen, KeyCode::Enter);
        assert_eq!(screen.rows().len(), 1);
        key(&mut screen, KeyCode::Esc);
        assert_eq!(screen.rows().len(), 2);
        key(&mut screen, KeyCode::Tab);
        has(&drawn(&screen, 80, 24), &["nothing was dropped yet"]);
        assert_eq!(key(&mut screen, KeyCode::Char('q')), After::Leave);
    }

    #[test]
    fn a_pause_keeps_the_screen_and_help_covers_it() {
        let mut screen = screen();
        key(&mut screen, KeyCode::Char('p'));
        screen.take(snapshot(9_999.0));
        has(&drawn(&screen, 80, 24), &["29 qps", "PAUSED"]);
        key(&mut screen, KeyCode::Char('p'));
        key(&mut screen, KeyCode::Char('?'));
        has(&drawn(&screen, 80, 24), &["keys", "sort by rate"]);
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (20, 3), (40, 10), (80, 24), (250, 70)] {
            let mut screen = screen();
            drawn(&screen, width, height);
            key(&mut screen, KeyCode::Char('?'));
            drawn(&screen, width, height);
            key(&mut screen, KeyCode::End);
        }
    }

    #[test]
    fn a_controller_that_is_gone_is_told_below_what_was_seen_last() {
        let mut screen = screen();
        screen.miss("no controller answers".to_owned());
        has(
            &drawn(&screen, 80, 24),
            &["no controller answers", "l4.plain"],
        );
    }

    #[test]
    fn colours_are_there_when_wanted_alone() {
        let mut screen = screen();
        key(&mut screen, KeyCode::Char('2'));
        let paints = |screen: &Screen| {
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
            terminal.draw(|frame| draw(screen, frame)).expect("drawn");
            let buffer = terminal.backend().buffer().clone();
            buffer
                .content()
                .iter()
                .any(|cell| cell.fg == Color::Red || cell.fg == Color::Green)
        };
        assert!(!paints(&screen));
        screen.colors = true;
        assert!(paints(&screen));
    }
}
