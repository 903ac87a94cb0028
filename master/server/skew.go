package server

import (
	"net/http"
	"sync"

	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// meet says what the caller's binary is, and refuses one that this one cannot work with.
func (s *Server) meet(r *http.Request) (protocol.Speaker, error) {
	agent := r.UserAgent()
	if agent == "" {
		agent = "a millrace that does not say its version"
	}
	caller := protocol.Parse(r.Header.Get(protocol.Header), agent)
	return caller, protocol.Meet(caller, s.binary)
}

// skewed remembers which nodes were refused for their version, by id: they are shown as lost, and this is why.
type skewed struct{ why sync.Map }

// note takes in how a call of a node began.
func (k *skewed) note(c call, err error) {
	switch {
	case !c.known || c.caller.Role == security.RoleUser:
	case err == nil:
		k.why.Delete(c.caller.ID)
	default:
		k.why.Store(c.caller.ID, err.Error())
	}
}

// reason is "" for a node that was not refused, or is served again.
func (k *skewed) reason(node string) string {
	why, _ := k.why.Load(node)
	text, _ := why.(string)
	return text
}
