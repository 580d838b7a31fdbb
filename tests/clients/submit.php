<?php
// PHPMailer: php submit.php PORT tls|ssl USER PASSWORD CA SENDER RECIPIENT SUBJECT MESSAGE-ID BODY-FILE
use PHPMailer\PHPMailer\PHPMailer;
require '/usr/share/php/libphp-phpmailer/src/Exception.php';
require '/usr/share/php/libphp-phpmailer/src/PHPMailer.php';
require '/usr/share/php/libphp-phpmailer/src/SMTP.php';

[, $port, $secure, $user, $password, $ca, $from, $to, $subject, $id, $body] = $argv;
$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int) $port;
$mail->SMTPAuth = true;
$mail->SMTPSecure = $secure;
$mail->SMTPOptions = ['ssl' => ['cafile' => $ca, 'verify_peer' => true, 'verify_peer_name' => true]];
$mail->Username = $user;
$mail->Password = $password;
$mail->CharSet = 'UTF-8';
$mail->Encoding = '8bit';
$mail->setFrom($from);
$mail->addAddress($to);
$mail->Subject = $subject;
$mail->MessageID = $id;
$mail->Body = file_get_contents($body);
$mail->send();
