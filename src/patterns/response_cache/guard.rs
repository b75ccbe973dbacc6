//! Web cache deception: paths that cache and origin may read differently, and content that is not what its name says.
//!
//! Sources: Gil, "Web Cache Deception Attack" (2017); Mirheidari et al., "Cached and Confused" (USENIX Security 2020);
//! Cloudflare's Cache Deception Armor, whose rule on extensions this follows.

use super::headers::Headers;
use super::target::Target;

/// Encoded characters that separate, end or climb once somebody decodes them.
const ENCODED: [&str; 11] = ["%00", "%09", "%0a", "%0d", "%23", "%2e%2e", "%2f", "%3b", "%3f", "%5c", "%25"];

/// Extensions of static files and the media types they come with.
const STATIC_TYPES: [(&[&str], &[&str]); 9] = [
    (&["css"], &["text/css"]),
    (&["js", "mjs"], &["text/javascript", "application/javascript", "application/x-javascript"]),
    (&["json", "map"], &["application/json", "text/json", "application/manifest+json"]),
    (&["png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "ico", "svg", "svgz", "tif", "tiff"], &["image/"]),
    (
        &["woff", "woff2", "ttf", "otf", "eot"],
        &["font/", "application/font", "application/vnd.ms-fontobject", "application/x-font"],
    ),
    (&["mp3", "ogg", "flac", "wav", "mp4", "webm", "avi", "mkv", "m4a"], &["audio/", "video/", "application/ogg"]),
    (&["pdf"], &["application/pdf"]),
    (&["txt", "csv", "md"], &["text/plain", "text/csv", "text/markdown"]),
    (
        &[
            "7z", "apk", "bin", "bz2", "class", "dmg", "doc", "docx", "eps", "epub", "exe", "gz", "iso", "jar", "odp",
            "ods", "odt", "ppt", "pptx", "ps", "rar", "rtf", "swf", "tar", "tgz", "wasm", "xls", "xlsx", "xz", "zip",
            "zst",
        ],
        &["application/"],
    ),
];

/// Whether a cache and an origin may take this path for two different resources.
pub fn suspicious(target: &Target) -> bool {
    let path = target.path().to_ascii_lowercase();
    let segments_climb = path.split('/').any(|segment| segment == ".." || segment == ".");
    path.contains([';', '\\'])
        || path.contains("//")
        || segments_climb
        || ENCODED.iter().any(|code| path.contains(code))
}

/// Whether the last segment has the extension of a static file but the content is of another type: the sign of a
/// dynamic page under a path made up by an attacker. Content of no known type does not fit either; an octet stream fits all.
pub fn disguised(target: &Target, response: &Headers) -> bool {
    let mut path = target.path().trim_end_matches('/');
    while let Some(rest) = path.strip_suffix("%20") {
        path = rest.trim_end_matches('/');
    }
    let segment = path.rsplit('/').next().unwrap_or_default();
    let Some((_, extension)) = segment.rsplit_once('.') else { return false };
    let extension = extension.to_ascii_lowercase();
    let Some((_, types)) = STATIC_TYPES.iter().find(|(names, _)| names.contains(&extension.as_str())) else {
        return false;
    };
    let content_type = response.single("content-type").unwrap_or_default().to_ascii_lowercase();
    let media_type = content_type.split(';').next().unwrap_or_default().trim_end();
    let fits = types.iter().any(|prefix| media_type.starts_with(prefix));
    // What applications answer with, which the widest of the lists would let through.
    let is_answer = ["json", "xml"].iter().any(|suffix| media_type.ends_with(suffix));
    media_type != "application/octet-stream" && (!fits || (is_answer && *types == ["application/"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target::parse(&format!("https://a{path}")).unwrap()
    }

    #[test]
    fn paths_that_two_parsers_read_differently_are_suspicious() {
        for path in [
            "/account%2fx.css",
            "/account%2Fx.css",
            "/account;x.css",
            "/account%3bx.css",
            "/account%00.css",
            "/account%0ax.css",
            "/account%23x.css",
            "/account%3fx.css",
            "/static/../account",
            "/static/..%2faccount",
            "/static/%2e%2e/account",
            "//account",
            "/a//b",
            "/static\\..\\account",
            "/account%5cx.css",
            "/account%252fx.css",
            "/./account",
        ] {
            assert!(suspicious(&target(path)), "{path}");
        }
        for path in ["/", "/a/b.css", "/a%20b", "/%C3%BC", "/a..b", "/a.b/", "/~x/(y)", "/a?b=c;d//e%2f"] {
            assert!(!suspicious(&target(path)), "{path}");
        }
    }

    #[test]
    fn an_extension_must_fit_the_content() {
        let check = |path: &str, content_type: Option<&str>, expected: bool| {
            let headers = Headers::from_pairs(content_type.map(|value| ("content-type", value))).unwrap();
            assert_eq!(disguised(&target(path), &headers), expected, "{path} {content_type:?}");
        };
        check("/account/x.css", Some("text/html; charset=utf-8"), true);
        check("/account/x.PNG", Some("text/html"), true);
        check("/account/x.js", None, true);
        check("/account/x.css/", Some("text/html"), true);
        check("/account/x.css%20/%20", Some("text/html"), true);
        check("/x.css", Some("text/css"), false);
        check("/x.js", Some("text/javascript;charset=utf-8"), false);
        check("/x.png", Some("image/webp"), false);
        check("/x.woff2", Some("application/octet-stream"), false);
        check("/account/x.zip", Some("text/html"), true);
        check("/account/x.tar.gz", Some("application/json; charset=utf-8"), true);
        check("/account/x.zip", Some("application/xhtml+xml"), true);
        check("/x.zip", Some("application/zip"), false);
        check("/x.docx", Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document"), false);
        check("/x.json", Some("application/json"), false);
        check("/account", Some("text/html"), false);
        check("/account.aspx", Some("text/html"), false);
    }
}
