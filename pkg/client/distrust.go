package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

// Untrusted says that one side refused the other's certificate: repeating does not help.
func Untrusted(err error) bool {
	var (
		verify *tls.CertificateVerificationError
		op     *net.OpError
		dial   *dialError
	)
	if errors.As(err, &dial) { // one that is only down may come back
		return !slices.ContainsFunc(dial.errs, func(e error) bool { return !Untrusted(e) })
	}
	if errors.As(err, &verify) || errors.Is(err, security.ErrUntrusted) || errors.Is(err, ErrRaftPort) {
		return true
	}
	return errors.As(err, &op) && op.Op == "remote error" // a TLS alert from the server
}

// trustProblems says who does not trust whom, why, and what to do about it.
func trustProblems(err error) *api.Problems {
	p := &api.Problems{ExitCode: ExitUnreachable, Next: "check that the address and the context are of the same site (millrace context show), or log in again"}
	var (
		stranger *security.StrangerError
		verify   *tls.CertificateVerificationError
	)
	line := "the server refused the credential: " + rootCause(err)
	switch {
	case errors.Is(err, ErrRaftPort):
		line, p.Next = whereOf(err)+": "+ErrRaftPort.Error(), "name the HTTPS port of a master: millrace master list has its address"
	case errors.As(err, &stranger):
		line, p.Next = strangerProblem(stranger, whereOf(err))
	case isTime(err):
		p.Next = "look at the clocks of both machines: here it is " + time.Now().UTC().Format(time.RFC3339) + "; if they are right, log in again, or join the node anew"
		if errors.As(err, &verify) {
			line = "the server's certificate is refused: " + rootCause(verify)
		}
	case errors.As(err, &verify):
		line = "the server's certificate is refused: " + rootCause(verify)
	case errors.Is(err, security.ErrUntrusted):
		line = rootMessage(err, security.ErrUntrusted)
	case strings.Contains(err.Error(), "tls: unknown certificate authority"):
		line = "the server does not know the CA of this credential: the site was given a new CA since, and trusts the one before no more"
		p.Next = "log in again: an administrator makes the code (millrace user code NAME), and you type millrace login URL CODE; a node has to join anew"
	}
	p.Errors = []string{line}
	return p
}

// strangerProblem says it of a server whose CA is not known here.
func strangerProblem(e *security.StrangerError, where string) (line, next string) {
	person := e.Own.Role == security.RoleUser
	switch {
	case e.Site == "":
		return where + " is no master of a Millrace site: something else answers there",
			"look at the address: --server, MILLRACE_SERVER, or that of the context (millrace context show)"
	case e.Site != e.Own.Site && person:
		return fmt.Sprintf("%s is of site %s, and your context is for site %s", where, e.Site, e.Own.Site),
			"choose a context of that site, or leave out --server: millrace context list; a code from its administrator makes you one: millrace login https://HOST:PORT CODE"
	case e.Site != e.Own.Site:
		return fmt.Sprintf("%s is of site %s, and this node is of site %s", where, e.Site, e.Own.Site),
			"look at the addresses of the masters that this node was given: --join"
	case person:
		return fmt.Sprintf("%s has a certificate of a CA that your context does not know: site %s was given a new CA, and trusts the one of your context no more", where, e.Site),
			fmt.Sprintf("log in again: an administrator makes the code (millrace user code %s), and you type: millrace login https://HOST:PORT CODE", e.Own.ID)
	}
	remove := "node"
	if e.Own.Role == security.RoleMaster {
		remove = "master"
	}
	return fmt.Sprintf("%s has a certificate of a CA that this node does not know: site %s was given a new CA, and trusts the one of this node no more", where, e.Site),
		fmt.Sprintf("have it join anew, with an empty folder; millrace %s remove %s takes out the one that it was", remove, e.Own.ID)
}

// whereOf is the address of the server that an error is about, as people write it.
func whereOf(err error) string {
	var dial *dialError
	if errors.As(err, &dial) && len(dial.servers) > 0 {
		return "https://" + dial.servers[0]
	}
	return "the server"
}

// isTime says that a certificate was refused for its dates: it has ended, or one of the two clocks is wrong.
func isTime(err error) bool {
	var (
		invalid x509.CertificateInvalidError
		alert   tls.AlertError
	)
	if errors.As(err, &invalid) {
		return invalid.Reason == x509.Expired
	}
	return errors.As(err, &alert) && alert == alertExpired || strings.Contains(err.Error(), "tls: expired certificate")
}

const alertExpired = 45 // of TLS: certificate_expired
