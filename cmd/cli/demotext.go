package cli

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"millrace/pkg/objectstore"
)

// findText lists where text may be found on this machine, the best first.
func findText(getenv func(string) string) []textSource {
	var sources []textSource
	roots := []string{getenv("GOROOT"), "/usr/local/go", "/usr/lib/go"}
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		roots = append([]string{strings.TrimSpace(string(out))}, roots...)
	}
	for _, r := range roots {
		if r != "" {
			sources = append(sources, textSource{"the Go source tree", filepath.Join(r, "src"), extension(".go", ".txt", ".md")})
			break
		}
	}
	plain := func(path string) bool {
		return !extension(".gz", ".xz", ".png", ".jpg", ".pdf", ".js", ".so", ".a")(path)
	}
	return append(sources,
		textSource{"/usr/share/doc", "/usr/share/doc", plain},
		textSource{"/usr/include", "/usr/include", extension(".h")},
		textSource{"/usr/lib/python3", "/usr/lib/python3", extension(".py")},
		textSource{"this machine's licences and configuration", "/etc", plain})
}

// enough is how much text makes the demo one: more splits than its slots.
const enough = 64 << 20

// uploadText concatenates text files into objects of some megabytes and uploads
// them while it reads on. Where there is too little text, what was found is repeated.
func uploadText(ctx context.Context, store objectstore.Store, bucket, prefix string, sources []textSource) (what string, objects int, total int64, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.NumCPU()))
	var names []string
	buf := &bytes.Buffer{}
	flush := func() {
		data, key := buf.Bytes(), fmt.Sprintf("%stext-%02d.txt", prefix, objects)
		objects, total, buf = objects+1, total+int64(len(data)), &bytes.Buffer{}
		g.Go(func() error {
			_, err := store.Put(ctx, bucket, key, bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{ContentType: "text/plain"})
			return err
		})
	}
	add := func(text []byte) {
		buf.Write(text)
		if len(text) > 0 && text[len(text)-1] != '\n' {
			buf.WriteByte('\n')
		}
		if buf.Len() >= demoObject {
			flush()
		}
	}
	for _, s := range sources {
		before := total + int64(buf.Len())
		if err := eachText(ctx, s, func(text []byte) bool { add(text); return total+int64(buf.Len()) < demoMost }); err != nil {
			return "", 0, 0, err
		}
		if total+int64(buf.Len()) > before {
			names = append(names, s.name)
		}
		if total+int64(buf.Len()) >= enough {
			break
		}
	}
	if len(names) == 0 {
		names = append(names, "Millrace's own words: no text was found on this machine")
		add([]byte(banner))
	}
	sample := bytes.Clone(buf.Bytes())
	for len(sample) > 0 && total+int64(buf.Len()) < enough {
		add(sample)
	}
	if buf.Len() > 0 {
		flush()
	}
	return strings.Join(names, ", "), objects, total, g.Wait()
}

// eachText hands the text files of a source to f, until it has enough. Files that cannot be read, or are no text, are passed over.
func eachText(ctx context.Context, s textSource, f func(text []byte) bool) error {
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && d != nil && d.IsDir():
			return fs.SkipDir
		case err != nil || !d.Type().IsRegular() || !s.wanted(path):
			return nil
		}
		if info, err := d.Info(); err != nil || info.Size() > 8<<20 {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || bytes.IndexByte(text[:min(len(text), 8<<10)], 0) >= 0 {
			return nil
		}
		if !f(text) {
			return filepath.SkipAll
		}
		return nil
	})
}
