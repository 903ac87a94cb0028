package master

import (
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// raftLog brings Raft's lines into ours. What Raft calls information is for
// debugging: who leads is said by this package.
type raftLog struct {
	log  *zap.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLog)(nil)

func newRaftLog(l *zap.Logger) *raftLog { return &raftLog{log: l} }

func (r *raftLog) write(level zapcore.Level, msg string, args []any) {
	checked := r.log.Check(level, msg)
	if checked == nil {
		return
	}
	checked.Write(fieldsOf(args)...)
}

func fieldsOf(args []any) []zap.Field {
	var fields []zap.Field
	for i := 0; i+1 < len(args); i += 2 {
		key := fmt.Sprint(args[i])
		switch v := args[i+1].(type) {
		case error:
			fields = append(fields, zap.NamedError(key, v))
		case hclog.Format:
			if len(v) > 0 {
				fields = append(fields, zap.String(key, fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)))
			}
		default:
			fields = append(fields, zap.Any(key, v))
		}
	}
	return fields
}

func (r *raftLog) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		r.Error(msg, args...)
	case hclog.Warn:
		r.Warn(msg, args...)
	default:
		r.Debug(msg, args...)
	}
}

// Warn passes on what may mean trouble; that a master stands for election does not,
// as it does so at every start.
func (r *raftLog) Warn(msg string, args ...any) {
	level := zap.WarnLevel
	if strings.HasPrefix(msg, "heartbeat timeout reached") {
		level = zap.DebugLevel
	}
	r.write(level, msg, args)
}

func (r *raftLog) Trace(string, ...any)           {}
func (r *raftLog) Debug(msg string, args ...any)  { r.write(zap.DebugLevel, msg, args) }
func (r *raftLog) Info(msg string, args ...any)   { r.write(zap.DebugLevel, msg, args) }
func (r *raftLog) Error(msg string, args ...any)  { r.write(zap.ErrorLevel, msg, args) }
func (r *raftLog) IsTrace() bool                  { return false }
func (r *raftLog) IsDebug() bool                  { return r.log.Core().Enabled(zap.DebugLevel) }
func (r *raftLog) IsInfo() bool                   { return r.IsDebug() }
func (r *raftLog) IsWarn() bool                   { return true }
func (r *raftLog) IsError() bool                  { return true }
func (r *raftLog) ImpliedArgs() []any             { return r.args }
func (r *raftLog) Name() string                   { return r.name }
func (r *raftLog) SetLevel(hclog.Level)           {}
func (r *raftLog) GetLevel() hclog.Level          { return hclog.Info }
func (r *raftLog) ResetNamed(string) hclog.Logger { return r }

func (r *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{log: r.log.With(fieldsOf(args)...), name: r.name, args: append(append([]any(nil), r.args...), args...)}
}

func (r *raftLog) Named(name string) hclog.Logger {
	return &raftLog{log: r.log.Named(name), name: name, args: r.args}
}

func (r *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return zap.NewStdLog(r.log)
}

func (r *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return zap.NewStdLog(r.log).Writer()
}
