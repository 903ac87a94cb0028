package objectstore

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCause(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, err := range map[string]error{
		"":                            nil,
		"x":                           errors.New("x"),
		"connection refused":          fmt.Errorf("input: %w", &Error{Op: "list", URL: "s3://b/", Kind: ErrUnreachable, Err: &url.Error{Op: "Get", URL: "http://h/", Err: refused}}),
		"Access Denied.":              &Error{Op: "list", Kind: ErrDenied, Code: "AccessDenied", Err: errors.New("Access Denied.")},
		"list s3://b/: access denied": &Error{Op: "list", URL: "s3://b/", Kind: ErrDenied},
	} {
		require.Equal(t, want, Cause(err))
	}
}

func TestAKeyThatNobodyHas(t *testing.T) {
	require.Equal(t, ErrDenied, kindOf("XAdminUserNotFound", 404), "versitygw's word for InvalidAccessKeyId")
	require.Equal(t, ErrDenied, kindOf("InvalidAccessKeyId", 403))
}
