//! Which tile stands where: nothing moves but what must.

use crate::call::view::Tile;

/// Order of the others' tiles, kept between frames.
#[derive(Debug, Default, Clone)]
pub struct Order {
    keys: Vec<String>,
}

impl Order {
    /// Takes the tiles of this moment in. Somebody new is appended; the hole of somebody gone is taken by the last tile of the
    /// same page, so that nobody else on that page moves.
    pub fn update(&mut self, tiles: &[Tile], page_size: usize) {
        let page_size = page_size.max(1);
        while let Some(hole) = self.keys.iter().position(|k| !tiles.iter().any(|t| !t.own && t.key == *k)) {
            let page_end = ((hole / page_size + 1) * page_size).min(self.keys.len());
            if page_end > hole + 1 {
                self.keys.swap(hole, page_end - 1);
            }
            self.keys.remove(page_end.saturating_sub(1).max(hole));
        }
        for tile in tiles.iter().filter(|t| !t.own) {
            if !self.keys.contains(&tile.key) {
                self.keys.push(tile.key.clone());
            }
        }
    }

    /// The tiles of one page: pinned first, then the kept order, own tiles last on the first page. Also how many pages there are.
    pub fn page<'a>(&self, tiles: &'a [Tile], page_size: usize, page: usize) -> (Vec<&'a Tile>, usize) {
        let mut others: Vec<&Tile> =
            self.keys.iter().filter_map(|k| tiles.iter().find(|t| !t.own && t.key == *k)).collect();
        others.sort_by_key(|t| !t.pinned);
        let own: Vec<&Tile> = tiles.iter().filter(|t| t.own).collect();
        let page_size = page_size.max(1);
        let first = page_size.saturating_sub(own.len()).max(1).min(others.len());
        let (head, rest) = others.split_at(first);
        let pages = 1 + rest.len().div_ceil(page_size);
        if page == 0 {
            return (head.iter().copied().chain(own).collect(), pages);
        }
        let chosen = rest.chunks(page_size).nth(page.min(pages - 1).saturating_sub(1)).unwrap_or(&[]);
        (chosen.to_vec(), pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiles(keys: &[&str]) -> Vec<Tile> {
        keys.iter().map(|k| Tile { key: (*k).to_owned(), own: *k == "me", ..Tile::default() }).collect()
    }

    fn names(order: &Order, tiles: &[Tile], size: usize, page: usize) -> String {
        order.page(tiles, size, page).0.iter().map(|t| t.key.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_leaver_moves_one_tile_only() {
        let mut order = Order::default();
        let all = tiles(&["a", "b", "c", "d", "me"]);
        order.update(&all, 25);
        assert_eq!(names(&order, &all, 25, 0), "a b c d me");
        let fewer = tiles(&["a", "c", "d", "me"]);
        order.update(&fewer, 25);
        assert_eq!(names(&order, &fewer, 25, 0), "a d c me");
        let more = tiles(&["a", "c", "d", "e", "me"]);
        order.update(&more, 25);
        assert_eq!(names(&order, &more, 25, 0), "a d c e me");
    }

    #[test]
    fn pages_hold_everybody_once() {
        let mut order = Order::default();
        let keys: Vec<String> = (0..42).map(|i| format!("p{i}")).collect();
        let mut list: Vec<&str> = keys.iter().map(String::as_str).collect();
        list.push("me");
        let all = tiles(&list);
        order.update(&all, 25);
        let (first, pages) = order.page(&all, 25, 0);
        assert_eq!((first.len(), pages), (25, 2));
        assert!(first.last().is_some_and(|t| t.own));
        assert_eq!(order.page(&all, 25, 1).0.len(), 18);
        // A page that is gone gives the last one.
        assert_eq!(order.page(&all, 25, 9).0.len(), 18);
    }

    #[test]
    fn pinned_come_first() {
        let mut order = Order::default();
        let mut all = tiles(&["a", "b", "me"]);
        order.update(&all, 25);
        if let Some(b) = all.get_mut(1) {
            b.pinned = true;
        }
        assert_eq!(names(&order, &all, 25, 0), "b a me");
    }
}
