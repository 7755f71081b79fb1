//! Where the tiles go. Pure: sizes in, rectangles out.
//!
//! All figures are those of the specification's stage layout: gap 8, ratio 16:9 (4:3 when the stage is taller than wide),
//! whole pixels, rows centred, a short last row centred.

/// Gap between tiles.
pub const GAP: f32 = 8.0;
/// Narrowest tile on a wide stage; more people make pages.
pub const MIN_TILE: f32 = 176.0;
/// Narrowest tile on a narrow stage.
pub const MIN_TILE_NARROW: f32 = 132.0;
/// Most tiles on one page.
pub const MAX_PER_PAGE: usize = 25;
/// Below this width the narrow rules hold.
pub const NARROW: f32 = 640.0;

/// A tile's place, in points from the stage's top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
}

/// A grid on a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Columns.
    pub columns: usize,
    /// One cell per tile, row by row.
    pub cells: Vec<Cell>,
}

fn ratio(width: f32, height: f32) -> f32 {
    if height > width { 4.0 / 3.0 } else { 16.0 / 9.0 }
}

fn tile_width(width: f32, height: f32, n: usize, columns: usize) -> f32 {
    let rows = n.div_ceil(columns.max(1)).max(1);
    let (c, r) = (columns as f32, rows as f32);
    ((width - GAP * (c - 1.0)) / c).min(ratio(width, height) * (height - GAP * (r - 1.0)) / r)
}

/// Lays `n` tiles out on a stage. `previous` is the number of columns drawn last: it stays until another gives 8 % more,
/// so that nothing jumps while the window is resized.
pub fn grid(width: f32, height: f32, n: usize, previous: Option<usize>) -> Grid {
    if n == 0 || width < 1.0 || height < 1.0 {
        return Grid { columns: 0, cells: Vec::new() };
    }
    let mut best = 1;
    let mut best_w = tile_width(width, height, n, 1);
    for columns in 2..=n {
        let w = tile_width(width, height, n, columns);
        let empty = |c: usize| n.div_ceil(c) * c - n;
        if w > best_w + 0.01 || ((w - best_w).abs() <= 0.01 && empty(columns) < empty(best)) {
            best = columns;
            best_w = w;
        }
    }
    if let Some(old) = previous.filter(|c| (1..=n).contains(c)) {
        let w = tile_width(width, height, n, old);
        if best_w < w * 1.08 {
            best = old;
            best_w = w;
        }
    }
    let w = best_w.floor().max(1.0);
    let h = (w / ratio(width, height) + 0.01).floor().max(1.0);
    let rows = n.div_ceil(best);
    let total_h = h * rows as f32 + GAP * (rows as f32 - 1.0);
    let top = ((height - total_h) / 2.0).floor().max(0.0);
    let mut cells = Vec::with_capacity(n);
    for row in 0..rows {
        let in_row = (n - row * best).min(best);
        let total_w = w * in_row as f32 + GAP * (in_row as f32 - 1.0);
        let left = ((width - total_w) / 2.0).floor().max(0.0);
        for column in 0..in_row {
            cells.push(Cell { x: left + column as f32 * (w + GAP), y: top + row as f32 * (h + GAP), w, h });
        }
    }
    Grid { columns: best, cells }
}

/// The most tiles of `n` that fit one page.
pub fn page_size(width: f32, height: f32, n: usize) -> usize {
    let least = if width < NARROW { MIN_TILE_NARROW } else { MIN_TILE };
    (1..=n.clamp(1, MAX_PER_PAGE))
        .rev()
        .find(|&k| grid(width, height, k, None).cells.first().is_some_and(|c| c.w >= least))
        .unwrap_or(1)
}

/// How a picture sits in its tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Where it is drawn, in the coordinates of the tile.
    pub dest: Cell,
    /// Part of the picture that is shown, as fractions: left, top, right, bottom.
    pub source: [f32; 4],
}

/// A camera fills its tile, cropped, unless more than 25 % of a side would go; a screen is never cropped.
pub fn fit(tile_w: f32, tile_h: f32, picture_w: f32, picture_h: f32, screen: bool) -> Fit {
    let whole = Cell { x: 0.0, y: 0.0, w: tile_w, h: tile_h };
    if tile_w < 1.0 || tile_h < 1.0 || picture_w < 1.0 || picture_h < 1.0 {
        return Fit { dest: whole, source: [0.0, 0.0, 1.0, 1.0] };
    }
    let (tile, picture) = (tile_w / tile_h, picture_w / picture_h);
    let shown = (tile / picture).min(picture / tile);
    // A little tolerance: 4:3 in a 16:9 tile of whole pixels is a quarter and a rounding.
    if !screen && shown >= 0.74 {
        let cut = (1.0 - shown) / 2.0;
        let source = if picture > tile { [cut, 0.0, 1.0 - cut, 1.0] } else { [0.0, cut, 1.0, 1.0 - cut] };
        return Fit { dest: whole, source };
    }
    let dest = if picture > tile {
        let h = (tile_w / picture).round();
        Cell { x: 0.0, y: ((tile_h - h) / 2.0).floor(), w: tile_w, h }
    } else {
        let w = (tile_h * picture).round();
        Cell { x: ((tile_w - w) / 2.0).floor(), y: 0.0, w, h: tile_h }
    };
    Fit { dest, source: [0.0, 0.0, 1.0, 1.0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Window minus top bar 44, control bar 68, side margins 12 (8 when narrow).
    const WIDE: (f32, f32) = (1280.0 - 24.0, 800.0 - 112.0);

    #[test]
    fn figures_of_the_specification() {
        for (n, columns, width) in [(4, 2, 604.0), (9, 3, 398.0), (25, 5, 233.0)] {
            let g = grid(WIDE.0, WIDE.1, n, None);
            assert_eq!((g.columns, g.cells[0].w), (columns, width), "{n} tiles");
            assert_eq!(g.cells.len(), n);
        }
        let narrow = grid(480.0 - 16.0, 700.0 - 112.0, 6, None);
        assert_eq!((narrow.columns, narrow.cells[0].w), (2, 228.0));
        assert_eq!(narrow.cells[0].h, 171.0, "4:3 on a tall stage");
    }

    #[test]
    fn nothing_overlaps_and_nothing_leaves_the_stage() {
        for (w, h) in [(320.0, 128.0), (464.0, 588.0), (936.0, 528.0), (1256.0, 688.0), (7656.0, 4208.0)] {
            for n in 1..=49 {
                let g = grid(w, h, n, None);
                assert_eq!(g.cells.len(), n);
                for (i, a) in g.cells.iter().enumerate() {
                    assert!(
                        a.x >= 0.0 && a.y >= 0.0 && a.x + a.w <= w + 0.01 && a.y + a.h <= h + 0.01,
                        "{n} on {w}×{h}: {a:?}"
                    );
                    assert_eq!((a.x.fract(), a.y.fract(), a.w.fract(), a.h.fract()), (0.0, 0.0, 0.0, 0.0));
                    for b in g.cells.iter().skip(i + 1) {
                        let apart = a.x + a.w + GAP <= b.x
                            || b.x + b.w + GAP <= a.x
                            || a.y + a.h + GAP <= b.y
                            || b.y + b.h + GAP <= a.y;
                        assert!(apart, "{a:?} and {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_short_last_row_is_centred() {
        let g = grid(WIDE.0, WIDE.1, 5, None);
        assert_eq!(g.columns, 3);
        let last = &g.cells[3..];
        let left = last[0].x;
        let right = WIDE.0 - (last[1].x + last[1].w);
        assert!((left - right).abs() <= 1.0, "{left} against {right}");
    }

    #[test]
    fn columns_stay_until_another_count_gives_eight_percent() {
        let n = 5;
        let flips = |keep: bool| {
            let (mut last, mut flips) = (None, 0);
            for step in 0..400 {
                // A window edge that trembles round the point where the best number of columns changes.
                let width = 700.0 + 40.0 * ((step % 7) as f32 - 3.0) / 3.0;
                let g = grid(width, 688.0, n, if keep { last } else { None });
                if last.is_some_and(|c| c != g.columns) {
                    flips += 1;
                }
                last = Some(g.columns);
            }
            flips
        };
        assert!(flips(true) <= flips(false));
        assert!(flips(true) <= 1);
        // A clear gain does change it.
        assert_eq!(grid(1256.0, 688.0, 4, Some(1)).columns, 2);
    }

    #[test]
    fn pages() {
        assert_eq!(page_size(WIDE.0, WIDE.1, 25), 25);
        assert_eq!(page_size(WIDE.0, WIDE.1, 42), 25);
        assert_eq!(page_size(464.0, 588.0, 6), 6);
        let narrow = page_size(464.0, 588.0, 25);
        assert!(narrow < 25 && grid(464.0, 588.0, narrow, None).cells[0].w >= MIN_TILE_NARROW);
        assert_eq!(page_size(10.0, 10.0, 3), 1);
        assert_eq!(grid(0.0, 0.0, 3, None).cells.len(), 0);
    }

    #[test]
    fn cameras_are_cropped_screens_and_portraits_are_not() {
        let camera = fit(604.0, 339.0, 640.0, 480.0, false);
        assert_eq!(camera.dest.w, 604.0);
        assert!((camera.source[1] - 0.126).abs() < 0.01, "{:?}", camera.source);
        let screen = fit(604.0, 339.0, 640.0, 480.0, true);
        assert_eq!((screen.dest.w, screen.source), (452.0, [0.0, 0.0, 1.0, 1.0]));
        let phone = fit(604.0, 339.0, 360.0, 640.0, false);
        assert_eq!((phone.dest.h, phone.dest.w), (339.0, 191.0));
    }
}
