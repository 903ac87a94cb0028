package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

func (a *app) loginCommand() *cli.Command {
	return a.leaf(spec{name: "login", usage: "become a user of a site, with the code that its administrator gave: makes a context, and makes that the current one",
		args: "URL CODE", min: 2, max: 2, do: login,
		example: "millrace login https://10.0.0.1:7400 mr1.c-…\nmillrace login https://10.0.0.1:7400 @code     (a file; - is standard input)"})
}

// login makes a key, which stays here, and trades the code for its certificate.
func login(c *call) error {
	code, err := c.secretOf("CODE", c.args[1])
	if err != nil {
		return err
	}
	if code != c.args[1] { // what `user create` and `user code` print is a whole command
		code = codeOfLine(code)
	}
	if _, err := security.ParseCode(code); err != nil {
		return usagef("copy the whole code, or ask an administrator for a new one: millrace user code NAME", "%s", err)
	}
	home, err := c.home()
	if err != nil {
		return err
	}
	name := c.String("context")
	if name == "" {
		if name, err = contextNameOf(c.args[0]); err != nil {
			return err
		}
	}
	if err := client.ProbeContexts(home, name); err != nil { // before the code is used up
		return c.contextFault(home, err)
	}
	keyPEM, csr, err := security.NewKey()
	if err != nil {
		return err
	}
	resp, err := client.Login(c.Context.Context, []string{c.args[0]}, code, csr, "millrace/"+Version)
	if err != nil {
		return err
	}
	ctx, err := loginContext(home, name, c.args[0], resp)
	if err != nil {
		return c.contextFault(home, err)
	}
	ctx.Key = string(keyPEM)
	if err := client.SaveContext(home, ctx); err != nil {
		return c.contextFault(home, err)
	}
	if err := client.UseContext(home, name); err != nil {
		return c.contextFault(home, err)
	}
	v := map[string]any{"context": name, "user": resp.GetUser(), "role": resp.GetRole(), "site": resp.GetSite(), "servers": ctx.Servers}
	return c.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "logged in as %s, role %s; context %s, now the current one\n", resp.GetUser(), resp.GetRole(), name)
		if ctx.S3 != nil && ctx.S3.AccessKey == "" {
			fmt.Fprintf(c.env.Stderr, "object store %s: its key is not given to this role; with a key of your own: millrace context set --s3 %s --s3-access-key KEY --s3-secret-key SECRET\n", ctx.S3.Endpoint, ctx.S3.Endpoint)
		}
	})
}

// codeOfLine takes the code out of the line that prints as what its owner types.
func codeOfLine(line string) string {
	if words := strings.Fields(line); len(words) == 4 && words[0] == "millrace" && words[1] == "login" {
		return words[3]
	}
	return line
}

// contextNameOf names a context by the host that one logs in at.
func contextNameOf(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return "", usagef("millrace login https://HOST:PORT CODE", "server %q is not of the form https://host:port", server)
	}
	return strings.Trim(strings.NewReplacer(":", "-", "%", "-").Replace(u.Hostname()), "-."), nil
}

// loginContext is the context of a login: a new one, or one that is there with another credential. It takes no other site's
// and no other user's.
func loginContext(home, name, server string, resp *api.LoginResponse) (*client.Context, error) {
	ctx := &client.Context{Name: name}
	old, err := client.LoadContext(home, name)
	switch {
	case errors.Is(err, client.ErrNoContext):
	case err != nil:
		return nil, err
	default:
		id, err := old.Credential().Identity()
		if err == nil && (id.Site != resp.GetSite() || id.ID != resp.GetUser()) {
			return nil, usagef("ask for a new code (millrace user code "+resp.GetUser()+"), then repeat with --context NAME",
				"context %s is user %s's of site %s, and is kept; the code was used up", name, id.ID, id.Site)
		}
		ctx = old
	}
	ctx.Servers = append([]string{server}, slices.DeleteFunc(slices.Clone(resp.GetMasters()), func(m string) bool { return m == server })...)
	ctx.CA, ctx.Certificate = string(resp.GetCaPem()), string(resp.GetCertificatePem())
	if store := resp.GetStore(); store.GetAccessKey() != "" || ctx.S3 == nil || ctx.S3.Endpoint != store.GetEndpoint() {
		ctx.S3 = &client.S3{Endpoint: store.GetEndpoint(), Region: store.GetRegion(), AccessKey: store.GetAccessKey(), SecretKey: store.GetSecretKey(),
			SessionToken: store.GetSessionToken(), CABundle: store.GetCaPem()}
	}
	return ctx, nil
}

const (
	renewWithin = 3 * time.Second // of a renewal, at the end of a command that has done its work
	renewLife   = 3               // it is made in the last third of a certificate's life
)

// keepLogin renews the person's certificate in the last third of its life, or when the site has come to trust another CA. It
// is no reason for a command to fail: the certificate is good yet, and the next command tries again.
func (c *connection) keepLogin() {
	if !c.loginDue(time.Now()) {
		return
	}
	csr, err := security.RequestFor([]byte(c.context.Key))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), renewWithin)
	defer cancel()
	resp, err := c.api().RenewLogin(ctx, connect.NewRequest(&api.RenewLoginRequest{CsrDer: csr}))
	if err != nil {
		return
	}
	now, err := client.LoadContext(c.home, c.context.Name)
	if err != nil || now.Key != c.context.Key || now.Certificate != c.context.Certificate { // somebody was faster
		return
	}
	now.CA, now.Certificate = string(resp.Msg.GetCaPem()), string(resp.Msg.GetCertificatePem())
	client.SaveContext(c.home, now) // as above
}

func (c *connection) loginDue(now time.Time) bool {
	cert, err := c.context.Credential().Certificate()
	if err != nil {
		return false
	}
	trusts := c.Trusts()
	if trusts == "" { // no master has answered
		return false
	}
	life := cert.NotAfter.Sub(cert.NotBefore.Add(security.ClockSkew))
	return cert.NotAfter.Sub(now) < life/renewLife || trusts != security.TrustID([]byte(c.context.CA))
}
