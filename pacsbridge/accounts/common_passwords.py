"""Words that passwords are made of far too often; a few digits or signs after one don't help."""

COMMON_PASSWORDS = frozenset(
    """
    password passwort passw0rd p@ssword p@ssw0rd pa$$word pa$$w0rd passwords mypassword newpassword
    oldpassword password123 pass pass1234 passpass password1password parola haslo heslo jelszo salasana
    wachtwoord senha contrasena contraseña motdepasse parool sifre lozinka geslo пароль parol пароль123
    12345678 123456789 1234567890 0123456789 12341234 11223344 1122334455 123123123 123321123 12344321
    87654321 987654321 0987654321 147258369 159753456 741852963 789456123 1029384756 01234567 123454321
    1q2w3e4r 1q2w3e4r5t 1q2w3e4r5t6y q1w2e3r4 q1w2e3r4t5 1qaz2wsx 1qaz2wsx3edc zaq12wsx zaq1zaq1 qazwsxedc
    qwerty qwertyui qwertyuiop qwerty123 qwertz qwertzui qwertzuiop azerty azertyui azertyuiop asdfghjk
    asdfghjkl asdfasdf asdfqwer zxcvbnm zxcvbnma qweasdzxc qweasd qweqwe qweqweqwe asdasdasd zxczxczxc
    йцукен йцукенгш фывапролдж qwer1234 asdf1234 zxcv1234 abcd1234 abc12345 abcabc abcdef abcdefg abcdefgh
    a1b2c3d4 aa123456 a1234567 a12345678 1a2b3c4d aaaa1111 1111aaaa asd123456 qwe123456 q12345678 z12345678
    letmein letmeinnow welcome welcomeback welcome1 hello helloworld hellohello changeme changeit changethis
    change_me change-me default secret topsecret mysecret secret123 supersecret trustno1 access
    accessgranted login loginlogin master administrator admin adminadmin admin1234 root rootroot toor
    superuser sysadmin system manager operator supervisor support helpdesk guest user username userpass test
    testtest testing tester test1234 temp temporary demo demodemo sample example service oracle cisco server
    database backup internet computer laptop network windows microsoft google facebook samsung android
    iphone apple hospital klinik clinic klinikum krankenhaus doctor doktor nurse patient patients medical
    medicine radiology radiologie xray xrayxray pacs pacspacs pacsbridge pacsadmin orthanc dicom dicomdicom
    osirix ohif viewer clinical surgery health healthcare medizin больница доктор лікарня лікар
    krankenschwester ambulance iloveyou iloveu loveyou lovelove loveme ilovegod mylove forever always
    babygirl babyboy princess prince sunshine moonlight starlight rainbow butterfly flower flowers rosebud
    angel angels heaven sweetheart sweety honey honeybee darling beautiful handsome beauty pretty lovely
    friends friendship family mother father brother sister daughter children monkey dragon tiger lion eagle
    falcon phoenix panther cheetah dolphin elephant penguin turtle rabbit kitten kitty puppy pumpkin chicken
    cookie cookies chocolate banana orange cherry strawberry pineapple peanut butter coffee cheese pizza
    hamburger cocacola football footbal baseball basketball soccer hockey tennis volleyball cricket rugby
    golfer golfing fishing hunter hunting racing skateboard snowboard swimming dancer dancing arsenal
    chelsea liverpool manchester barcelona realmadrid juventus milan dynamo spartak bayern dortmund schalke
    ajax benfica flamengo superman batman spiderman ironman wolverine starwars skywalker jedimaster startrek
    pokemon pikachu naruto minecraft fortnite roblox warcraft worldofwarcraft counterstrike playstation
    nintendo xbox matrix gandalf frodo hobbit merlin harrypotter voldemort hogwarts simpsons garfield snoopy
    mickey mickeymouse donald goofy cinderella barbie hellokitty michael michelle jennifer jessica jordan
    daniel thomas robert william richard charles charlie andrew anthony matthew joshua christopher nicholas
    nicole amanda ashley melissa sarah hannah samantha elizabeth victoria alexander alexandra sebastian
    christian stephanie patrick martin maria marina natasha tatiana ekaterina vladimir dmitry sergey andrey
    aleksandr oleksandr nikita andreas stefan claudia sabine petra monika katarzyna pierre francois giovanni
    francesco alessandro antonio carlos fernando roberto summer winter spring autumn sommer herbst fruehling
    january february march april june july august september october november december monday tuesday
    wednesday thursday friday saturday sunday montag freitag london paris berlin munich hamburg vienna
    moscow kyiv kiev warsaw prague madrid lisbon istanbul newyork california texas florida chicago boston
    dallas america american germany deutschland france england ireland scotland ukraine украина україна
    russia россия poland polska italia espana portugal brasil brazil mexico canada australia japan china
    india mercedes porsche ferrari corvette mustang chevrolet toyota honda yamaha kawasaki suzuki harley
    harleydavidson volkswagen audi bmwbmw ford truck trucker diesel cowboys yankees steelers eagles broncos
    packers lakers metallica nirvana slipknot eminem beatles elvis guitar piano drummer music musica
    rocknroll whatever nothing something everything nobody anybody somebody blahblah fuckyou fuckoff asshole
    bullshit godisgood jesus jesuschrist christ blessed blessing faith believe freedom liberty peace hope
    lucky silver golden diamond purple yellow black blackjack white shadow hunter1 hunter2 killer assassin
    warrior knight samurai ninja pirate wizard magic mystic legend champion winner correcthorsebatterystaple
    opensesame sesame abracadabra mustbechanged nopassword nopasswd nopass none
    """.split()  # noqa: SIM905 - hundreds of lines as a list
)
