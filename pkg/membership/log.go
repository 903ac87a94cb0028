package membership

import (
	"bytes"
	"log"

	"go.uber.org/zap"
)

// stdLogger passes memberlist's log lines ("[WARN] memberlist: …") on. Its warnings
// and errors are mostly of peers that went away, which Membership says itself, once.
func stdLogger(l *zap.Logger) *log.Logger {
	return log.New(logWriter{l.Named("gossip").WithOptions(zap.WithCaller(false))}, "", 0)
}

type logWriter struct{ log *zap.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	level, text := parseLine(p)
	switch level {
	case "ERR", "ERROR":
		w.log.Info(text)
	default:
		w.log.Debug(text)
	}
	return len(p), nil
}

// parseLine splits "[LEVEL] memberlist: text\n".
func parseLine(p []byte) (level, text string) {
	p = bytes.TrimSpace(p)
	if rest, ok := bytes.CutPrefix(p, []byte("[")); ok {
		if l, t, ok := bytes.Cut(rest, []byte("] ")); ok {
			level, p = string(l), t
		}
	}
	return level, string(bytes.TrimPrefix(p, []byte("memberlist: ")))
}
