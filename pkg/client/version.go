package client

import (
	"context"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"

	"millrace/pkg/protocol"
)

// introduced says with each call who calls and what it speaks, and holds the server's answer against that. The server
// does the same: whichever of the two is newer knows what it no longer serves.
type introduced struct{ own protocol.Speaker }

func introduce(userAgent string) introduced {
	if userAgent == "" {
		userAgent = "a millrace program"
	}
	return introduced{protocol.Own(userAgent)}
}

func (i introduced) say(h http.Header) { h.Set(protocol.Header, i.own.String()) }

// hear is an error if the one who answers speaks nothing that is served here.
func (i introduced) hear(answer http.Header) error {
	if err := protocol.Meet(i.own, protocol.Parse(answer.Get(protocol.Header), "the master")); err != nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return nil
}

// heard is hear for an answer that came as an error, if it came from a master at all.
func (i introduced) heard(err error) error {
	var answer *connect.Error
	if errors.As(err, &answer) && answer.Meta().Get(protocol.Header) != "" {
		if skew := i.hear(answer.Meta()); skew != nil {
			return skew
		}
	}
	return err
}

func (i introduced) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		i.say(req.Header())
		resp, err := next(ctx, req)
		if err != nil {
			return nil, i.heard(err)
		}
		if err := i.hear(resp.Header()); err != nil {
			return nil, err
		}
		return resp, nil
	}
}

func (i introduced) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		i.say(conn.RequestHeader())
		return &introducedConn{StreamingClientConn: conn, by: i}
	}
}

func (i introduced) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// introducedConn looks at the answer's header when the first message has come.
type introducedConn struct {
	connect.StreamingClientConn
	by    introduced
	known bool // Receive is one goroutine's
}

func (c *introducedConn) Receive(msg any) error {
	err := c.StreamingClientConn.Receive(msg)
	if err != nil && !errors.Is(err, io.EOF) {
		return c.by.heard(err)
	}
	if c.known || err != nil {
		return err
	}
	c.known = true
	return c.by.hear(c.ResponseHeader())
}
