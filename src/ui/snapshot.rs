//! A picture of the grid as the window would draw it, without a window.

use egui::{Align2, CornerRadius, Rect, vec2};

use super::raster::{Headless, Image};
use super::text::t;
use super::tile::{self, Around};
use super::video::Video;
use super::{layout, theme, widgets};
use crate::call::view::{DeviceState, View};

/// Draws the tiles of a call, others first and the own one last, on the layout of the window's stage.
///
/// `width` and `height` are in pixels; they are kept between 64 and 7680.
pub fn render_grid(view: &View, width: u32, height: u32) -> Image {
    let (width, height) = (width.clamp(64, 7680), height.clamp(64, 7680));
    let mut video = Video::texture();
    let mut headless = Headless::new();
    let own_muted = matches!(view.me.microphone, DeviceState::Muted | DeviceState::None);
    headless.draw(width, height, |ui| {
        let p = theme::palette(ui.ctx());
        let area = ui.max_rect();
        ui.painter().rect_filled(area, CornerRadius::ZERO, p.canvas);
        let stage = area.shrink(theme::space::M);
        let (others, own): (Vec<_>, Vec<_>) = view.tiles.iter().partition(|t| !t.own);
        let tiles: Vec<_> = others.into_iter().chain(own).collect();
        if tiles.is_empty() {
            widgets::line(
                ui,
                area.center(),
                Align2::CENTER_CENTER,
                &t("call.alone"),
                theme::semibold(theme::size::HEADING),
                p.text,
                area.width(),
            );
        }
        let grid = layout::grid(stage.width(), stage.height(), tiles.len(), None);
        for (tile, cell) in tiles.into_iter().zip(grid.cells) {
            let rect = Rect::from_min_size(stage.min + vec2(cell.x, cell.y), vec2(cell.w, cell.h));
            let speaking = tile.level.speaking() && tile.audio_active;
            // Not mirrored: the picture is evidence of what is sent.
            let around = Around { cut_off_s: None, speaking, mirror: false, own_muted };
            tile::show(ui, &mut video, tile, rect, around);
        }
    })
}

/// Writes [`render_grid`]'s picture as a PNG file. The file appears whole or not at all: it is written beside and renamed.
pub fn write_png(path: &std::path::Path, view: &View, width: u32, height: u32) -> Result<(), String> {
    let png = render_grid(view, width, height).to_png()?;
    let beside = path.with_extension("png.part");
    std::fs::write(&beside, png).and_then(|()| std::fs::rename(&beside, path)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::view::Tile;
    use crate::media::video::frame::VideoFrame;
    use std::sync::Arc;

    fn colored(luma: u8, u: u8, v: u8) -> Arc<VideoFrame> {
        Arc::new(VideoFrame {
            width: 64,
            height: 36,
            y: vec![luma; 64 * 36],
            u: vec![u; 32 * 18],
            v: vec![v; 32 * 18],
            at: std::time::Instant::now(),
            rtp_timestamp: 0,
        })
    }

    fn pixel(image: &Image, x: u32, y: u32) -> [u8; 3] {
        let i = ((y * image.width + x) * 4) as usize;
        [image.rgba[i], image.rgba[i + 1], image.rgba[i + 2]]
    }

    #[test]
    fn four_tiles_stand_where_the_layout_puts_them() {
        let mut view = View::default();
        for (i, (luma, u, v)) in [(81, 90, 240), (145, 54, 34), (41, 240, 110), (235, 128, 128)].into_iter().enumerate()
        {
            let tile = Tile {
                key: format!("p{i}"),
                name: format!("Person {i}"),
                own: i == 3,
                audio_active: i != 1,
                video_active: true,
                bars: 4,
                ..Tile::default()
            };
            tile.frames.put(colored(luma, u, v));
            view.tiles.push(tile);
        }
        let image = render_grid(&view, 1280, 720);
        assert_eq!(image.rgba.len(), 1280 * 720 * 4);
        let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) < 6);
        // Red, green, blue and white in the middle of the four quarters, the gap between them is the canvas.
        assert!(near(pixel(&image, 320, 180), [254, 0, 0]), "{:?}", pixel(&image, 320, 180));
        assert!(near(pixel(&image, 960, 180), [0, 255, 1]), "{:?}", pixel(&image, 960, 180));
        assert!(near(pixel(&image, 320, 540), [0, 0, 255]), "{:?}", pixel(&image, 320, 540));
        assert!(near(pixel(&image, 960, 540), [255, 255, 255]));
        assert_eq!(pixel(&image, 2, 2), [0x0D, 0x10, 0x12]);
        // The plate of the last tile is dark under white letters, over the white picture.
        let grid = layout::grid(1256.0, 696.0, 4, None);
        let cell = grid.cells[3];
        let (left, bottom) = ((12.0 + cell.x) as u32, (12.0 + cell.y + cell.h) as u32);
        assert!(pixel(&image, left + 10, bottom - 12)[0] < 100);
        let bright = (left + 10..left + 110).filter(|x| pixel(&image, *x, bottom - 20)[0] > 200).count();
        assert!(bright > 3, "no letters on the plate");
        // Corners are round: the very corner of a tile is canvas.
        assert_eq!(pixel(&image, (12.0 + cell.x) as u32, (12.0 + cell.y) as u32), [0x0D, 0x10, 0x12]);
        let png = image.to_png().expect("encodes");
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().expect("is a PNG");
        let mut back = vec![0; reader.output_buffer_size().expect("size")];
        reader.next_frame(&mut back).expect("decodes");
        assert_eq!(back, image.rgba);
        if let Some(dir) = std::env::var_os("TERTULIA_PICTURES") {
            std::fs::write(std::path::Path::new(&dir).join("snapshot.png"), png).expect("written");
        }
    }

    #[test]
    fn no_tile_and_a_hundred_tiles_are_drawn_too() {
        assert_eq!(render_grid(&View::default(), 1, 1).width, 64);
        let view = View {
            tiles: (0..100).map(|i| Tile { key: i.to_string(), ..Tile::default() }).collect(),
            ..View::default()
        };
        assert_eq!(render_grid(&view, 640, 360).height, 360);
    }
}
