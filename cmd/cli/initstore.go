package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"millrace/cmd/cli/s3source"
	"millrace/master"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// siteStore is the object store that the site is to have. A context that happens to be here is not asked: it is of another site.
func (m *machine) siteStore() (s3source.Source, error) {
	c := m.c
	s, err := s3source.Resolve(s3source.Flags{Endpoint: c.String("s3"), AccessKey: c.String("s3-access-key"), SecretKey: c.String("s3-secret-key"),
		SessionToken: c.String("s3-session-token"), Region: c.String("s3-region"), CAFile: c.String("s3-ca")}, c.env.Getenv, c.env.Home, nil)
	var mistake *s3source.Error
	if errors.As(err, &mistake) {
		return s, usagef(mistake.Next, "%s", mistake.Message)
	}
	return s, err
}

// tryStore finds the object store that the site will have, and asks it something, with the key that the site will use.
func (m *machine) tryStore(ctx context.Context) (s3source.Source, error) {
	c := m.c
	s, err := m.siteStore()
	if err != nil {
		return s, err
	}
	if s.Kind == s3source.None {
		return s, usagef("AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… millrace init --s3 http://HOST:9000", "a site needs an object store, and none was named")
	}
	c.sayStorage(s)
	store, err := objectstore.NewS3(objectstore.Config{Endpoint: s.S3.Endpoint, Region: s.S3.Region, AccessKey: s.S3.AccessKey,
		SecretKey: s.S3.SecretKey, SessionToken: s.S3.SessionToken, CAPEM: s.S3.CABundle})
	if err != nil {
		return s, err
	}
	system, err := objectstore.ParseS3(cmp.Or(c.String("system"), master.DefaultSystemPrefix))
	if err != nil {
		return s, usagef("--system s3://BUCKET/PREFIX/", "--system: %s", err)
	}
	return s, objectstore.Try(ctx, store, system.Bucket, system.Key)
}

// otherStore says of a site that is there that the store which was named is not the one that it has.
func (m *machine) otherStore(ctx context.Context) (string, error) {
	if !m.c.IsSet("s3") {
		return "", nil
	}
	named, err := m.siteStore()
	if err != nil {
		return "", err
	}
	cl, _, err := m.adminClient()
	if err != nil {
		return "", err
	}
	defer cl.Close()
	site, err := cl.API().GetSite(ctx, connect.NewRequest(&api.GetSiteRequest{}))
	if err != nil {
		return "", err
	}
	has, want := site.Msg.GetStore(), named.S3
	if has.GetEndpoint() == want.Endpoint && has.GetAccessKey() == want.AccessKey && has.GetSecretKey() == want.SecretKey {
		return "", nil
	}
	return fmt.Sprintf("the site still uses object store %s with key %s: another one, or another key, goes as AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into %s, before the service %s is started again",
		has.GetEndpoint(), has.GetAccessKey(), masterEnv, masterService), nil
}
