package connect

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/html"
)

// maxRewritten bounds the pages whose links are rewritten; longer ones are passed on as they are.
const maxRewritten = 8 << 20

// links are the attributes of HTML elements that hold one URL, for any element: those of HTML 4 and 5.
var links = []string{"href", "src", "action", "formaction", "background", "cite", "data", "longdesc", "manifest", "poster", "usemap", "codebase", "classid", "profile"}

// throughProxy returns where a browser that sees a pod's page through the API has to look for what the page calls target.
// Only absolute paths on the pod itself move below prefix; what is relative or elsewhere stays.
func throughProxy(target string, page *url.URL, prefix string) string {
	u, err := url.Parse(target)
	if err != nil || (u.Host != "" && u.Host != page.Host) || (u.Scheme != "" && u.Scheme != page.Scheme) || u.Opaque != "" {
		return target
	}
	if u.Host == "" && (!strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, prefix+"/")) {
		return target
	}
	moved := path.Join(prefix, u.Path)
	if strings.HasSuffix(u.Path, "/") || u.Path == "" {
		moved += "/"
	}
	u.Scheme, u.Host, u.Path, u.RawPath = "", "", moved, ""
	return u.String()
}

// moveLinks makes a pod's answer work below prefix: redirects, and links in HTML pages.
func moveLinks(resp *http.Response, prefix string) error {
	if to := resp.Header.Get("Location"); to != "" {
		resp.Header.Set("Location", throughProxy(to, resp.Request.URL, prefix))
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	encoding := resp.Header.Get("Content-Encoding")
	if strings.TrimSpace(kind) != "text/html" || (encoding != "" && encoding != "gzip") || resp.ContentLength > maxRewritten {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRewritten+1))
	if err != nil {
		return fmt.Errorf("reading the page: %w", err)
	}
	if len(body) > maxRewritten {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
		return nil
	}
	resp.Body.Close()
	var page io.Reader = bytes.NewReader(body)
	if encoding == "gzip" {
		if page, err = gzip.NewReader(page); err != nil {
			return fmt.Errorf("reading the page: %w", err)
		}
		page = io.LimitReader(page, 4*maxRewritten)
		resp.Header.Del("Content-Encoding")
	}
	var out bytes.Buffer
	if err := moveLinksIn(&out, page, resp.Request.URL, prefix); err != nil {
		return err
	}
	resp.Body = io.NopCloser(&out)
	resp.ContentLength = int64(out.Len())
	resp.Header.Set("Content-Length", strconv.Itoa(out.Len()))
	return nil
}

func moveLinksIn(w *bytes.Buffer, page io.Reader, at *url.URL, prefix string) error {
	tokens := html.NewTokenizer(page)
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			if err := tokens.Err(); err != io.EOF {
				return fmt.Errorf("reading the page: %w", err)
			}
			return nil
		case html.StartTagToken, html.SelfClosingTagToken:
			raw := bytes.Clone(tokens.Raw())
			tag, moved := tokens.Token(), false
			for i, a := range tag.Attr {
				if !slices.Contains(links, a.Key) {
					continue
				}
				if to := throughProxy(a.Val, at, prefix); to != a.Val {
					tag.Attr[i].Val, moved = to, true
				}
			}
			if moved {
				w.WriteString(tag.String())
			} else {
				w.Write(raw)
			}
		default:
			w.Write(tokens.Raw())
		}
	}
}
