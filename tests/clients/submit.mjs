// Nodemailer: node submit.mjs PORT implicit|starttls USER PASSWORD CA FILE SENDER RECIPIENT
// With CLIENTS_TOKEN the password is an access token.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [port, tls, user, pass, ca, file, from, to] = process.argv.slice(2);
const nodemailer = createRequire(process.env.CLIENTS_NODE + "/")("nodemailer");
const transport = nodemailer.createTransport({
  host: "127.0.0.1",
  port: Number(port),
  secure: tls === "implicit",
  requireTLS: tls === "starttls",
  auth: process.env.CLIENTS_TOKEN ? { type: "OAuth2", user, accessToken: pass } : { user, pass },
  tls: { ca: readFileSync(ca) },
});
const sent = await transport.sendMail({ envelope: { from, to }, raw: readFileSync(file) });
console.log(sent.response);
