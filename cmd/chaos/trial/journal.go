package trial

import (
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"
)

// journal is a file with a line of JSON for each event.
type journal struct {
	mu  sync.Mutex
	f   *os.File
	err error // the first one
}

func openJournal(path string) (*journal, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &journal{f: f}, nil
}

func (j *journal) write(what string, fields map[string]any) {
	line := map[string]any{"at": time.Now().UTC(), "event": what}
	for k, v := range fields {
		line[k] = v
	}
	data, err := json.Marshal(line)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		_, err = j.f.Write(append(data, '\n'))
	}
	if j.err == nil {
		j.err = err
	}
}

func (j *journal) close() error { return errors.Join(j.err, j.f.Close()) }
