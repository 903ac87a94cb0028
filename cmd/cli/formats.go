package cli

import (
	"io"

	"millrace/jobs"
)

type formatView struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // input, output, codec
	Doc  string `json:"doc"`
}

var formatDocs = map[string]string{
	"text/input":  "lines, ended by \\n or \\r\\n; .gz objects are decompressed, one split each",
	"text/output": "key TAB value NEWLINE; a record without value is the key alone",
	"none/codec":  "as it is (the default)",
	"gzip/codec":  "the names of parts end in .gz",
	"zstd/codec":  "the names of parts end in .zst",
}

func jobFormats(c *call) error {
	views := []formatView{}
	for _, k := range []struct {
		kind  string
		names []string
	}{{"input", jobs.InputFormats()}, {"output", jobs.OutputFormats()}, {"codec", jobs.Codecs()}} {
		for _, n := range k.names {
			views = append(views, formatView{n, k.kind, formatDocs[n+"/"+k.kind]})
		}
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "NAME", "KIND", "")
		for _, f := range views {
			t.row(f.Name, f.Kind, f.Doc)
		}
		t.flush()
	})
}
