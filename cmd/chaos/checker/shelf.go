package checker

import (
	"context"
	"encoding/json"
	"fmt"
)

// FileStore is the block store as the command line shows it: places are URLs, and there are no buckets.
type FileStore struct {
	// Run runs one command line of millrace.
	Run func(ctx context.Context, args ...string) Outcome
}

// root is what a manifest leaves out of a file's URL.
const root = "hdfs:///"

// Glimpse looks at what lies below a folder.
func (s FileStore) Glimpse(ctx context.Context, _, prefix string) (Glimpse, error) {
	g := Glimpse{Prefix: prefix}
	before, err := s.get(ctx, prefix+"_SUCCESS")
	if err != nil {
		return g, err
	}
	listed := s.Run(ctx, "fs", "ls", "-R", prefix, "--json")
	var entries []StoredFile
	if listed.Code == 0 {
		if err := json.Unmarshal([]byte(listed.Out), &entries); err != nil {
			return g, fmt.Errorf("list %s: %w", prefix, err)
		}
	} else if listed.Code != 4 { // there is no such folder
		return g, fmt.Errorf("list %s: exit code %d: %s", prefix, listed.Code, listed.Said)
	}
	for _, e := range entries {
		if !e.Directory {
			g.Objects = append(g.Objects, Object{Key: e.Path, Size: e.Size})
		}
	}
	after, err := s.get(ctx, prefix+"_SUCCESS")
	if err != nil {
		return g, err
	}
	if g.Steady = before == after; before == "" {
		return g, nil
	}
	g.Manifest = &Manifest{}
	if err := json.Unmarshal([]byte(before), g.Manifest); err != nil {
		return g, fmt.Errorf("read %s_SUCCESS: %w", prefix, err)
	}
	for i := range g.Manifest.Parts {
		g.Manifest.Parts[i].Key, g.Manifest.Parts[i].ETag = root+g.Manifest.Parts[i].Key, "" // listings have no ETags here
	}
	return g, nil
}

// Read reads the parts that a manifest names, in its order. A part that is not there is empty.
func (s FileStore) Read(ctx context.Context, _ string, m Manifest) ([][]byte, error) {
	var parts [][]byte
	for _, p := range m.Parts {
		text, err := s.get(ctx, p.Key)
		if err != nil {
			return nil, err
		}
		parts = append(parts, []byte(text))
	}
	return parts, nil
}

// get reads a file; "" if there is none.
func (s FileStore) get(ctx context.Context, url string) (string, error) {
	switch o := s.Run(ctx, "fs", "cat", url); o.Code {
	case 0:
		return o.Out, nil
	case 4:
		return "", nil
	default:
		return "", fmt.Errorf("read %s: exit code %d: %s", url, o.Code, o.Said)
	}
}
