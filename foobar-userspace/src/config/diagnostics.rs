//! Mistakes in the configuration, each with its place, the line itself and a cure.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str,
};

use super::Place;

/// Every mistake found in one run; never empty.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    problems: Vec<Diagnostic>,
    sources: Vec<Source>,
}

/// One mistake.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub message: String,
    /// The file that holds it: the configuration, or a set's file.
    pub path: PathBuf,
    /// `None` when the file could not be read.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Vec<String>,
    source: usize,
    span: Option<Range<usize>>,
    related: Vec<(Range<usize>, String)>,
}

#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// The mistakes so far.
pub(super) struct Problems {
    found: Vec<Problem>,
    sources: Vec<Source>,
    secrets: Vec<Range<usize>>,
}

/// A mistake about to be reported.
#[must_use]
pub(super) struct Problem {
    message: String,
    source: usize,
    span: Range<usize>,
    help: Vec<String>,
    related: Vec<(Range<usize>, String)>,
}

impl Diagnostics {
    /// The configuration file itself cannot be read.
    #[must_use]
    pub fn unreadable(path: &Path, error: &io::Error) -> Self {
        let help = match error.kind() {
            io::ErrorKind::NotFound => {
                "name the file with `-c FILE`; `foobar config example` prints one to begin with"
            }
            io::ErrorKind::PermissionDenied => "run as root, or as a user that may read it",
            io::ErrorKind::InvalidData => "the file must be UTF-8 text",
            _ => "name another file with `-c FILE`",
        };
        Self {
            problems: vec![Diagnostic {
                message: format!("cannot read {}: {}", path.display(), plain(error)),
                path: path.to_owned(),
                place: None,
                help: vec![help.to_owned()],
                source: 0,
                span: None,
                related: Vec::new(),
            }],
            sources: Vec::new(),
        }
    }

    /// What was found wrong with the things that the file at `path` names: where it names them, what, and the cure.
    #[must_use]
    pub fn about_things_named(path: &Path, found: Vec<(Place, String, String)>) -> Self {
        // It was read a moment ago; should it be gone, the messages stand without its lines.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut problems = Problems::new(&text, path);
        for (place, message, cure) in found {
            let span = problems.sources[CONFIGURATION].value_at(place);
            problems.report(Problem::new(span, message).help(cure));
        }
        problems.finish()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Diagnostic> {
        self.problems.iter()
    }

    /// As a compiler would print them, for a terminal `width` columns wide.
    #[must_use]
    pub fn render(&self, color: bool, width: usize) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        }
        .term_width(width);
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&renderer.render(&[self.group(problem)]));
            text.push_str("\n\n");
        }
        text.push_str(&match self.problems.len() {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        });
        text
    }

    fn group<'a>(&'a self, problem: &'a Diagnostic) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(&problem.message));
        if let (Some(span), Some(source)) = (&problem.span, self.sources.get(problem.source)) {
            group = group.element(source.snippet(span, "", AnnotationKind::Primary));
            for (span, label) in &problem.related {
                group = group.element(source.snippet(span, label, AnnotationKind::Context));
            }
        }
        group.elements(
            problem
                .help
                .iter()
                .map(|help| Level::HELP.message(normalize_untrusted_str(help))),
        )
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false, 120))
    }
}

impl std::error::Error for Diagnostics {}

impl Problems {
    pub fn new(text: &str, path: &Path) -> Self {
        Self {
            found: Vec::new(),
            sources: vec![Source::new(text, path)],
            secrets: Vec::new(),
        }
    }

    /// What stands in `span` is never shown.
    pub fn hide(&mut self, span: Range<usize>) {
        self.secrets.push(span);
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn report(&mut self, mut problem: Problem) {
        let text = &self.sources[problem.source].text;
        problem.span = whole_characters(text, &problem.span);
        for (span, _) in &mut problem.related {
            *span = whole_characters(text, span);
        }
        self.found.push(problem);
    }

    /// Whether a mistake inside `span` is known already, so that one that follows from it need not be told.
    pub fn touch(&self, span: &Range<usize>) -> bool {
        self.found.iter().any(|problem| {
            problem.source == CONFIGURATION
                && span.start <= problem.span.start
                && problem.span.end <= span.end
        })
    }

    /// Another file whose lines can be shown.
    pub fn add_source(&mut self, text: &str, path: &Path) -> usize {
        self.sources.push(Source::new(text, path));
        self.sources.len() - 1
    }

    pub fn text(&self) -> &str {
        &self.sources[CONFIGURATION].text
    }

    pub fn place(&self, offset: usize) -> Place {
        self.sources[CONFIGURATION].place(offset)
    }

    pub fn finish(mut self) -> Diagnostics {
        self.found
            .sort_by_key(|problem| (problem.source, problem.span.start));
        let mut sources = self.sources;
        let problems = self
            .found
            .into_iter()
            .map(|problem| Diagnostic {
                message: problem.message,
                path: sources[problem.source].path.clone(),
                place: Some(sources[problem.source].place(problem.span.start)),
                help: problem.help,
                source: problem.source,
                span: Some(problem.span),
                related: problem.related,
            })
            .collect();
        for span in &self.secrets {
            sources[CONFIGURATION].hide(span);
        }
        Diagnostics { problems, sources }
    }
}

impl Problem {
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: CONFIGURATION,
            span,
            help: Vec::new(),
            related: Vec::new(),
        }
    }

    /// In the file that [`Problems::add_source`] numbered.
    pub fn in_source(mut self, source: usize) -> Self {
        self.source = source;
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Another place that matters, as `first used here`.
    pub fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }
}

impl Source {
    fn new(text: &str, path: &Path) -> Self {
        let ends = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            lines: std::iter::once(0).chain(ends).collect(),
        }
    }

    fn hide(&mut self, span: &Range<usize>) {
        let span = whole_characters(&self.text, span);
        let stars = self.text[span.clone()].replace(|letter| letter != '\n', "*");
        self.text.replace_range(span, &stars);
        self.lines = Self::new(&self.text, &self.path).lines;
    }

    /// What stands at `place`: a string to its end, anything else to the end of the line.
    fn value_at(&self, place: Place) -> Range<usize> {
        let line = usize::try_from(place.line.saturating_sub(1)).unwrap_or(0);
        let column = usize::try_from(place.column.saturating_sub(1)).unwrap_or(0);
        let start = self.lines.get(line).copied().unwrap_or(self.text.len());
        let text = self.text[start..].lines().next().unwrap_or_default();
        let begin = text
            .char_indices()
            .nth(column)
            .map_or(text.len(), |(at, _)| at);
        let value = &text[begin..];
        let end = match value.strip_prefix('"').and_then(|rest| rest.find('"')) {
            Some(quote) => quote + 2,
            None => value.trim_end().len(),
        };
        start + begin..start + begin + end
    }

    /// The line that holds `offset`, from 0.
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset) - 1
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let column = self.text[self.lines[line]..]
            .char_indices()
            .take_while(|(position, _)| self.lines[line] + position < offset)
            .count();
        Place {
            line: small(line) + 1,
            column: small(column) + 1,
        }
    }

    /// The line where `span` begins, and no more than that line of it underlined.
    fn snippet<'a>(
        &'a self,
        span: &Range<usize>,
        label: &'a str,
        kind: AnnotationKind,
    ) -> Snippet<'a, Annotation<'a>> {
        let line = self.line(span.start);
        let start = self.lines[line];
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let text = self.text[start..end].trim_end_matches(['\r', '\n']);
        let first = (span.start - start).min(text.len());
        let last = (span.end.max(span.start) - start).min(text.len());
        let mut annotation = kind.span(first..last);
        if !label.is_empty() {
            annotation = annotation.label(label);
        }
        Snippet::source(text)
            .path(self.path.to_string_lossy())
            .line_start(line + 1)
            .annotation(annotation)
    }
}

/// Without `(os error 2)`.
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

fn whole_characters(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end).max(start)
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The configuration itself among the sources.
const CONFIGURATION: usize = 0;
