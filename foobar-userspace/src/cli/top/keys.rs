//! What each key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{After, Mode, Panel, Screen, Sort};

pub fn press(screen: &mut Screen, key: KeyEvent) -> After {
    if key.kind == KeyEventKind::Release {
        return After::Stay;
    }
    let ends = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    if ends {
        return After::Leave;
    }
    match screen.mode {
        Mode::Filter => edit(screen, key.code),
        Mode::Help => screen.mode = Mode::Watch,
        Mode::Paused | Mode::Watch => return walk(screen, key.code),
    }
    After::Stay
}

fn edit(screen: &mut Screen, key: KeyCode) {
    match key {
        KeyCode::Enter => screen.mode = Mode::Watch,
        KeyCode::Esc => {
            screen.filter.clear();
            screen.mode = Mode::Watch;
        }
        KeyCode::Backspace => {
            screen.filter.pop();
        }
        KeyCode::Char(letter) => {
            screen.filter.push(letter);
            screen.first_row = 0;
        }
        _ => {}
    }
}

fn walk(screen: &mut Screen, key: KeyCode) -> After {
    match key {
        KeyCode::Char('q') => return After::Leave,
        KeyCode::Esc if screen.filter.is_empty() => return After::Leave,
        KeyCode::Esc => screen.filter.clear(),
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => screen.mode = Mode::Help,
        KeyCode::Char('/') => screen.mode = Mode::Filter,
        KeyCode::Char('p' | ' ') => {
            screen.mode = match screen.mode {
                Mode::Paused => Mode::Watch,
                _ => Mode::Paused,
            };
        }
        KeyCode::Char('s') => {
            screen.sort = match screen.sort {
                Sort::Rate => Sort::Total,
                Sort::Total => Sort::Name,
                Sort::Name => Sort::Rate,
            };
        }
        KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => turn(screen, 1),
        KeyCode::BackTab | KeyCode::Left => turn(screen, Panel::ALL.len() - 1),
        KeyCode::Char(digit @ '1'..='5') => {
            let number = digit as usize - '1' as usize;
            show(screen, Panel::ALL[number]);
        }
        KeyCode::Down | KeyCode::Char('j') => screen.first_row += 1,
        KeyCode::Up | KeyCode::Char('k') => {
            screen.first_row = screen.first_row.saturating_sub(1);
        }
        KeyCode::PageDown => screen.first_row += PAGE,
        KeyCode::PageUp => screen.first_row = screen.first_row.saturating_sub(PAGE),
        KeyCode::Home | KeyCode::Char('g') => screen.first_row = 0,
        KeyCode::End | KeyCode::Char('G') => screen.first_row = screen.rows().len(),
        _ => {}
    }
    let last = screen.rows().len().saturating_sub(1);
    screen.first_row = screen.first_row.min(last);
    After::Stay
}

fn turn(screen: &mut Screen, by: usize) {
    let here = Panel::ALL
        .iter()
        .position(|panel| *panel == screen.panel)
        .unwrap_or_default();
    show(screen, Panel::ALL[(here + by) % Panel::ALL.len()]);
}

fn show(screen: &mut Screen, panel: Panel) {
    screen.panel = panel;
    screen.first_row = 0;
}

const PAGE: usize = 10;
