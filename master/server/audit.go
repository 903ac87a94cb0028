package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"millrace/pkg/audit"
	"millrace/pkg/security"
)

// Auditor keeps who changed what, and who was refused; *audit.Log is one. It must not block for long.
type Auditor interface{ Audit(audit.Event) }

type unheard struct{}

func (unheard) Audit(audit.Event) {}

// event is what is known of a call before it was made.
func (s *Server) event(c call, procedure string) audit.Event {
	e := audit.Event{At: s.cfg.Now().UTC(), Role: whoNames[c.who], Peer: c.peer, Procedure: procedure}
	switch {
	case !c.known:
	case c.caller.Role == security.RoleUser:
		e.User = c.caller.ID
	default:
		e.Node = c.caller.ID
	}
	return e
}

// auditRefused notes a call that was not the caller's to make.
func (s *Server) auditRefused(r *http.Request, c call, err error) {
	e := s.event(c, r.URL.Path)
	e.Outcome, e.Refused = connectMessage(toConnect(err)), true
	s.cfg.Audit.Audit(e)
}

// auditInterceptor notes each call that changes something when it has been made, whatever came of it. What nodes write
// for their attempts is in the jobs' own records.
type auditInterceptor struct{ *Server }

func (a *auditInterceptor) note(ctx context.Context, procedure string, message any, err error) {
	c := callOf(ctx)
	m, ok := message.(proto.Message)
	if !procedures[procedure].changes || c.who == worker && strings.HasPrefix(procedure, "/millrace.v1.FilesService/") || ok && onlyAsks(m.ProtoReflect()) {
		return
	}
	e := a.event(c, procedure)
	e.Outcome = "ok"
	if ok {
		e.Subject = subjectOf(m.ProtoReflect())
	}
	if err != nil {
		e.Outcome = fmt.Sprintf("%s: %s", connect.CodeOf(err), connectMessage(err))
	}
	a.cfg.Audit.Audit(e)
}

func (a *auditInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		a.note(ctx, req.Spec().Procedure, req.Any(), err)
		return resp, err
	}
}

func (a *auditInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (a *auditInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		first := &firstMessage{StreamingHandlerConn: conn}
		err := next(ctx, first)
		a.note(ctx, conn.Spec().Procedure, first.message, err)
		return err
	}
}

// firstMessage keeps the first message of a stream: what it is about.
type firstMessage struct {
	connect.StreamingHandlerConn
	message any
}

func (f *firstMessage) Receive(m any) error {
	err := f.StreamingHandlerConn.Receive(m)
	if err == nil && f.message == nil {
		f.message = m
	}
	return err
}

// subjects are the fields of requests that say what a call is about. No field that holds a secret is among them.
var subjects = []protoreflect.Name{"cluster", "node", "node_id", "job", "path", "from", "to", "name", "role", "id", "provider", "program", "input", "output",
	"sha256", "groups", "target", "min", "max", "command", "no_exec", "force", "as_master", "reason", "termination_protected", "uses", "ttl_ms", "spec"}

// subjectOf says what a request is about: NAME=VALUE, of the fields that say so.
func subjectOf(m protoreflect.Message) string {
	var parts []string
	for _, name := range subjects {
		f := m.Descriptor().Fields().ByName(name)
		if f == nil || !m.Has(f) {
			continue
		}
		switch v := m.Get(f); {
		case f.IsList():
			parts = append(parts, fmt.Sprintf("%s=%s", name, listOf(f, v.List())))
		case f.Message() != nil:
			parts = append(parts, subjectOf(v.Message()))
		default:
			parts = append(parts, fmt.Sprintf("%s=%v", name, v.Interface()))
		}
	}
	return strings.Join(parts, " ")
}

func listOf(f protoreflect.FieldDescriptor, list protoreflect.List) string {
	items := make([]string, list.Len())
	for i := range items {
		if f.Message() != nil {
			items[i] = subjectOf(list.Get(i).Message())
		} else {
			items[i] = list.Get(i).String()
		}
	}
	text, err := json.Marshal(items)
	if err != nil { // strings can always be
		return ""
	}
	return string(text)
}

// onlyAsks says whether a request that could change something is only to say what that would take.
func onlyAsks(m protoreflect.Message) bool {
	for _, name := range []protoreflect.Name{"dry_run", "places_only", "status_only"} {
		if f := m.Descriptor().Fields().ByName(name); f != nil && f.Kind() == protoreflect.BoolKind && m.Get(f).Bool() {
			return true
		}
	}
	return false
}
